"""What is to be transcribed: files, folders, patterns and manifests to recordings with ids."""

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxfast._addresses import check_address, is_address, listed, without_secrets
from voxfast.errors import DatasetError

__all__ = [
    "Found",
    "Recording",
    "check_id",
    "check_together",
    "collect",
    "id_of",
    "in_shard",
    "place_of",
]

_KINDS = (
    "3gp aac ac3 aif aifc aiff amr ape asf au avi caf eac3 flac flv m2ts m4a m4b m4v mka mkv mov "
    "mp2 mp3 mp4 mpeg mpg mts oga ogg ogv opus snd spx ts tta voc w64 wav wave weba webm wma wmv wv"
)
AUDIO_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
"""Of a folder, files with these suffixes are taken; a file that is named is always taken."""

_LONGEST_PART, _LONGEST_ID = 200, 2000  # bytes; file systems allow 255 and 4096
_INDEX = re.compile(r"index(\.\d+-of-\d+)?")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of an archive.

    Attributes:
        id: names its results: ``talks/one.flac`` gives ``talks/one.flac.srt``.
        path: an absolute path, or an address.
        options: of its own session, beside those of the whole archive.
    """

    id: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown_path(self) -> str:
        """The path without what may be a secret."""
        return without_secrets(self.path) if is_address(self.path) else self.path


@dataclass(slots=True)
class Found:
    """Recordings, and what was left out on the way to them.

    Attributes:
        recordings: by id, in the order in which they were found.
        left_out: suffixes of files in folders that are none of audio, and how many there were.
        unused: columns of manifests that mean nothing here.
    """

    recordings: dict[str, Recording] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unused: set[str] = field(default_factory=set)

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


def collect(inputs: Iterable[str | os.PathLike[str]]) -> Found:
    """The recordings that inputs name.

    Args:
        inputs: audio files; folders, all audio files in which are taken; patterns
            (``talks/**/*.mp3``); manifests (``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv``,
            ``.parquet``); addresses of files, of folders (with a "/" at the end) and patterns.

    Raises:
        DatasetError: if an input is not there or gives nothing, if a manifest is wrong, or if
            two recordings have one id.
        ImportError: if an address or a manifest needs a package that is missing.
        OSError: if a folder cannot be read.
    """
    from voxfast.batch.manifest import MANIFESTS, read_manifest

    found = Found()
    for item in inputs:
        name = os.fspath(item)
        before = len(found.recordings)
        if Path(name).suffix.lower() in MANIFESTS and not is_address(name):
            for recording in read_manifest(name, found.unused):
                found.add(recording)
        else:
            for path in _files(name, found.left_out):
                found.add(Recording(id_of(path), place_of(path)))
        if len(found.recordings) == before and not before:
            raise DatasetError(f"{name} has no recordings{_others(found.left_out)}")
    if not found.recordings:
        raise DatasetError("there is nothing to transcribe; name files, folders or a manifest")
    return found


def id_of(path: str) -> str:
    """The id of a file: its path as it was given, without what leads out of a folder.

    ``./talks/one.flac`` is ``talks/one.flac``; ``/talks/one.flac`` is the same; one with ``..``
    is taken from the root on; ``s3://talks/one.flac`` is ``s3/talks/one.flac``. Names that are
    too long for a file system are cut and end in a hash.

    Raises:
        DatasetError: if no file can have that name.
    """
    if is_address(path):
        text = without_secrets(path).replace("://", "/", 1)
    else:
        text = os.path.normpath(path)
        if ".." in text.split("/"):
            text = place_of(text)
    return check_id("/".join(_cut(part) for part in text.split("/") if part))


def place_of(path: str) -> str:
    """A path as an absolute one; an address as it is."""
    # Not Path.resolve(): it would follow links, which may lead elsewhere tomorrow.
    return path if is_address(path) else os.path.abspath(path)  # noqa: PTH100


def check_id(id_: str) -> str:
    """Check that an id names a place below the folder of results, and return it.

    Raises:
        DatasetError: if it does not, or is too long.
    """
    parts = id_.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in id_:
        raise DatasetError(
            f"the id {id_!r:.200} names no place below the folder of results; an id is a relative "
            f"path without '.' and '..'"
        )
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError as error:
        raise DatasetError(f"the id {id_!r:.200} cannot be a file's name: {error.reason}") from None
    if max(sizes) > _LONGEST_PART or sum(sizes) + len(sizes) > _LONGEST_ID:
        raise DatasetError(
            f"the id {id_!r:.60}… is too long: {_LONGEST_PART} bytes a part, {_LONGEST_ID} "
            f"altogether"
        )
    return id_


def check_together(ids: Iterable[str], suffixes: Sequence[str], *, folds_case: bool) -> None:
    """Check that the results of recordings do not get into one another's way.

    Args:
        suffixes: of their results.
        folds_case: whether the file system takes ``A`` and ``a`` for one name.

    Raises:
        DatasetError: if two would be one file, or a file of one the folder of another, or the
            index.
    """
    known = {_folded(id_) if folds_case else id_: id_ for id_ in ids}
    files = {f"{name}.{suffix}": id_ for name, id_ in known.items() for suffix in suffixes}
    if folds_case:
        seen: dict[str, str] = {}
        for id_ in ids:
            other = seen.setdefault(_folded(id_), id_)
            if other != id_:
                raise DatasetError(
                    f"the ids {other!r} and {id_!r} are one name on this file system; give the "
                    f"recordings other ids in a manifest"
                )
    for name, id_ in known.items():
        if "jsonl" in suffixes and _INDEX.fullmatch(name):
            raise DatasetError(f"the id {id_!r} as jsonl would be the index; give it another one")
        for parent in _parents(name):
            if parent in files:
                raise DatasetError(
                    f"the results of {files[parent]!r} and {id_!r} would be a file and a folder of "
                    f"one name; give one of them another id in a manifest"
                )


def in_shard(id_: str, shard: tuple[int, int]) -> bool:
    """Whether a recording belongs to shard i of n, counted from 1; each is in exactly one."""
    digest = hashlib.sha256(id_.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % shard[1] == shard[0] - 1


def _files(name: str, left_out: Counter[str]) -> Iterator[str]:
    """The audio files that an input names, as it names them."""
    if is_address(name):
        check_address(name)
        if not name.endswith("/") and "*" not in name:
            yield name
            return
        yield from _audio_only(listed(name), left_out)
    elif Path(name).is_dir():
        yield from _audio_only(_below(name), left_out)
    elif Path(name).exists():
        yield name
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # absolute ones, too
        if not matches:
            raise DatasetError(f"no file matches {name}")
        yield from _audio_only([path for path in matches if Path(path).is_file()], left_out)
    else:
        raise DatasetError(f"{name} does not exist")


def _below(folder: str) -> Iterator[str]:
    """All files below a folder, sorted, but for hidden ones."""

    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be read must not be left out unnoticed

    for place, folders, files in os.walk(folder, onerror=fail):
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


def _others(left_out: Mapping[str, int]) -> str:
    """What was found instead of recordings, as a clause."""
    return f", only files of other kinds ({', '.join(sorted(left_out))})" if left_out else ""


def _cut(part: str) -> str:
    """A part of a path that is no longer than an id may have."""
    data = os.fsencode(part)
    if len(data) <= _LONGEST_PART:
        return part
    mark = hashlib.sha256(data).hexdigest()[:12]
    return f"{data[: _LONGEST_PART - 20].decode('utf-8', 'ignore')}~{mark}"


def _folded(id_: str) -> str:
    return unicodedata.normalize("NFC", id_).casefold()


def _parents(name: str) -> Iterator[str]:
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)
