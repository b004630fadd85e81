"""Recordings and their ids, which are the names of their results."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxfast._addresses import is_address, without_secrets
from voxfast.batch.index import is_index
from voxfast.errors import DatasetError

__all__ = [
    "Recording",
    "check_id",
    "check_together",
    "id_of",
    "in_shard",
    "place_of",
]

_LONGEST_PART, _LONGEST_ID = 200, 2000  # bytes; file systems allow 255 and 4096


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of an archive.

    Attributes:
        id: names its results: ``talks/one.flac`` gives ``talks/one.flac.srt``.
        path: an absolute path, or an address.
        options: of its own session, beside those of the whole archive.
        place: of its row in a manifest (``line 3``).
    """

    id: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """Its row in a manifest, and its id."""
        return f"{self.place} ({self.id})" if self.place else self.id

    @property
    def shown_path(self) -> str:
        """The path without what may be a secret."""
        return without_secrets(self.path) if is_address(self.path) else self.path


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
        if "jsonl" in suffixes and is_index(f"{name}.jsonl"):
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
