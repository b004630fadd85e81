"""The index: a line of JSON for each recording that was done, in the folder of results."""

import fcntl
import json
import logging
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from voxfast.errors import DatasetError

__all__ = ["Entry", "Index", "difference", "is_index", "settings_key"]

_log = logging.getLogger(__name__)
_INDEX = re.compile(r"index(\.\d+-of-\d+)?\.jsonl")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index knows of a recording.

    Attributes:
        is_failed: whether it ended in an error.
        settings: see :func:`settings_key`.
        suffixes: of the results that the line names.
        path: of the recording, as the line shows it.
    """

    is_failed: bool
    settings: str
    suffixes: tuple[str, ...]
    path: str


class Index:
    """Appends lines to an index, and knows those that are there; the last one of an id holds.

    A line is written at once and is on the disk when :meth:`add` returns. One that was cut off
    (a crash, a full disk) is removed when the index is opened again, and its recording counts
    as not done. Each shard has an index of its own, ``index.2-of-8.jsonl``, and reads those of
    the others, of which what succeeded holds: several machines may fill one folder.

    Args:
        folder: of the results; there already.
        shard: (i, n), counted from 1; None: all recordings.

    Attributes:
        entries: by id.

    Raises:
        DatasetError: from the constructor, while another process has it open.
        OSError: if it cannot be read or written.
    """

    def __init__(self, folder: Path, shard: tuple[int, int] | None = None) -> None:
        part = "" if shard is None else f".{shard[0]}-of-{shard[1]}"
        self.path = folder / f"index{part}.jsonl"
        self.entries: dict[str, Entry] = {}
        for path in sorted(folder.glob("index*.jsonl")):
            if path != self.path and is_index(path.name):
                self._take(_read(path)[0])
        # Opened for reading, too: the lock of some file systems needs it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            own, self._size = _read(self.path)
            self._take(own)
            os.ftruncate(self._fd, self._size)  # a line that was cut off
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def add(self, line: dict[str, Any]) -> None:
        """Append the line of a recording.

        Raises:
            OSError: if that is not possible; nothing of it stays.
        """
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        # File names that are no UTF-8 have surrogates, which UTF-8 cannot hold.
        text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        data = f"{text}\n".encode()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except BaseException:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self.entries[line["id"]] = _entry(line)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"{self.path} is being written by another voxfast batch; --shard i/n lets several "
                f"work in one folder"
            ) from None
        except OSError:
            pass  # a file system without locks

    def _take(self, entries: dict[str, Entry]) -> None:
        """Take over the entries of a file."""
        for id_, entry in entries.items():
            known = self.entries.get(id_)
            if known is None or known.is_failed:
                self.entries[id_] = entry
            elif not entry.is_failed:
                both = known.suffixes if known.settings == entry.settings else ()
                suffixes = tuple(dict.fromkeys(both + entry.suffixes))
                self.entries[id_] = replace(entry, suffixes=suffixes)


def is_index(name: str) -> bool:
    """Whether a file of that name, in a folder of results, is an index."""
    return _INDEX.fullmatch(name) is not None


def settings_key(model: str, options: dict[str, Any]) -> str:
    """What results depend on, beside the audio, as a text."""
    # Interned: an archive of a million recordings has a few of them.
    return sys.intern(json.dumps([model, options], sort_keys=True))


def difference(before: str, now: str) -> str:
    """How what :func:`settings_key` returned for a recording before differs from now, in words."""
    (old_model, old), (new_model, new) = json.loads(before), json.loads(now)
    pairs = [("the model", old_model, new_model)]
    pairs += [(name, old.get(name), new.get(name)) for name in sorted({*old, *new})]
    return ", ".join(
        f"{name} was {_said(then)} and is {_said(value)}"
        for name, then, value in pairs
        if then != value
    )


def _said(value: object) -> str:
    return "not given" if value is None else str(value)


def _entry(line: dict[str, Any]) -> Entry:
    if not isinstance(line["id"], str):
        raise TypeError("an id is a text")
    prefix = f"{line['id']}."
    return Entry(
        line["error"] is not None,
        settings_key(line["model"], line["options"]),
        tuple(sys.intern(name.removeprefix(prefix)) for name in line["files"]),
        line["path"],
    )


def _read(path: Path) -> tuple[dict[str, Entry], int]:
    """The entries of a file, and the length in bytes of its whole lines."""
    entries, size = {}, 0
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):
                break
            size += len(data)
            try:
                line = json.loads(data)
                entries[line["id"]] = _entry(line)
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
                _log.warning("%s: line %d is damaged, and left out", path, number)
    return entries, size
