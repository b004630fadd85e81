"""``--vocabulary``: phrases from a file or from the command line."""

import argparse
from pathlib import Path

from voxfast.errors import InvalidOptionError

MAX_BYTES = 1 << 22


def vocabulary(text: str) -> tuple[tuple[str, float], ...]:
    """A type of argument: the name of a file, or phrases that are separated by commas.

    A file is UTF-8 with a phrase per line, and its weight behind a tab if it has one. Empty lines
    and those that begin with # are left out.
    """
    from voxfast.models.vocabulary import read_vocabulary  # needs NumPy: only when asked for

    path = Path(text)
    try:
        entries = _lines(path) if _is_file(path) else [part for part in text.split(",") if part]
        phrases = read_vocabulary(entries)
    except (InvalidOptionError, OSError, UnicodeError) as error:
        raise argparse.ArgumentTypeError(f"{text:.60}: {error}") from error
    if not phrases:
        raise argparse.ArgumentTypeError(f"{text:.60} has no phrases")
    return phrases


def _is_file(path: Path) -> bool:
    """Whether a file is meant, be it there or not."""
    try:
        return path.exists() or len(path.parts) > 1 or path.suffix in (".txt", ".tsv")
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def _lines(path: Path) -> list[str | tuple[str, float]]:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidOptionError(f"a vocabulary may have {MAX_BYTES >> 20} MiB")
    entries: list[str | tuple[str, float]] = []
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), 1):
        phrase, tab, weight = line.partition("\t")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entries.append((phrase, float(weight)) if tab else phrase)
        except ValueError:
            raise InvalidOptionError(
                f"line {number}: the weight behind the tab must be a number; got {weight!r:.40}"
            ) from None
    return entries
