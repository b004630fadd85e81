"""What is to be transcribed: the recordings in files, folders, patterns, manifests and stores."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from voxfast._addresses import check_address, is_address, listed, without_secrets
from voxfast.batch.manifest import MANIFESTS, read_manifest
from voxfast.batch.recordings import Recording, id_of, place_of
from voxfast.errors import DatasetError

__all__ = ["AUDIO_SUFFIXES", "Found", "Inputs", "collect"]

_KINDS = (
    "3gp aac ac3 aif aifc aiff amr ape asf au avi caf eac3 flac flv m2ts m4a m4b m4v mka mkv mov "
    "mp2 mp3 mp4 mpeg mpg mts oga ogg ogv opus snd spx ts tta voc w64 wav wave weba webm wma wmv wv"
)
AUDIO_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
"""Of a folder, files with these suffixes are taken; a file that is named is always taken."""


Inputs: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


@dataclass(slots=True)
class Found:
    """Recordings, and what was left out on the way to them.

    Attributes:
        recordings: by id, in the order in which they were found.
        left_out: suffixes of files in folders that are none of audio, and how many there were.
        unused: columns of manifests that mean nothing here.
        empty: inputs without any recording.
    """

    recordings: dict[str, Recording] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unused: set[str] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)

    def add(self, recording: Recording) -> None:
        """Add one; the same one twice counts once.

        Raises:
            DatasetError: if another one has its id.
        """
        other = self.recordings.setdefault(recording.id, recording)
        if other != recording:
            which = (
                f"{other.shown_path} and {recording.shown_path}"
                if other.path != recording.path
                else f"{recording.shown_path} with other options"
            )
            raise DatasetError(
                f"two recordings have the id {recording.id!r}: {which}; give them different ids "
                f"in a manifest"
            )


def collect(inputs: Inputs) -> Found:
    """The recordings that inputs name.

    Args:
        inputs: one or several: audio files; folders, all audio files in which are taken; patterns
            (``talks/**/*.mp3``); manifests (``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv``,
            ``.parquet``); addresses of files, of folders (with a "/" at the end) and patterns.

    Raises:
        DatasetError: if a folder or a manifest is not there, if nothing matches a pattern, if
            there are no recordings at all, if a manifest is wrong, or if two recordings have one
            id. A file that is named and missing is a recording, which will fail.
        AudioFileError: for an address of a kind that is not read.
        ImportError: if an address or a manifest needs a package that is missing.
        OSError: if a folder cannot be read.
    """
    found = Found()
    for item in [inputs] if isinstance(inputs, str | os.PathLike) else inputs:
        name = os.fspath(item)
        is_empty = True
        for recording in (
            read_manifest(name, found.unused)
            if Path(name).suffix.lower() in MANIFESTS and not is_address(name)
            else _from_files(name, found.left_out)
        ):
            found.add(recording)
            is_empty = False
        if is_empty:
            found.empty.append(without_secrets(name) if is_address(name) else name)
    if not found.recordings:
        others = f", only other files ({', '.join(sorted(found.left_out))})" * bool(found.left_out)
        raise DatasetError(f"no recordings in {', '.join(found.empty) or 'no inputs'}{others}")
    return found


def _from_files(name: str, left_out: Counter[str]) -> Iterator[Recording]:
    for path in _files(name, left_out):
        yield Recording(id_of(path), place_of(path))


def _files(name: str, left_out: Counter[str]) -> Iterator[str]:
    """The audio files that an input names, as it names them."""
    if is_address(name):
        check_address(name)
        if not name.endswith("/") and "*" not in name:
            yield name
            return
        objects = listed(name)
        if not objects:
            raise DatasetError(f"there is nothing at {without_secrets(name)}")
        yield from _audio_only(objects, left_out)
    elif Path(name).is_dir():
        yield from _audio_only(_below(name), left_out)
    elif Path(name).exists():
        yield name
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # absolute ones, too
        if not matches:
            raise DatasetError(f"no file matches {name}")
        files = [path for path in matches if Path(path).is_file()]
        if len(files) < len(matches):
            left_out["folders"] += len(matches) - len(files)
        yield from _audio_only(files, left_out)
    elif Path(name).suffix and not name.endswith("/"):
        yield name  # its worker finds that it is not there, as with a row of a manifest
    else:
        raise DatasetError(f"there is no file or folder {name}")


def _below(folder: str) -> Iterator[str]:
    """All files below a folder, sorted, but for hidden ones; links to folders are followed once."""

    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be read must not be left out unnoticed

    seen = set()
    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (str(Path(place, name)) for name in sorted(files) if name[0] != ".")


def _audio_only(paths: Iterable[str], left_out: Counter[str]) -> Iterator[str]:
    """Those with a suffix of audio; the others are counted."""
    for path in paths:
        suffix = Path(path).suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            yield path
        else:
            left_out[suffix or "no suffix"] += 1
