"""Recordings joined in one file or pipe, where FFmpeg ends with the first without a word."""

import re
from collections.abc import Callable, Iterable, Iterator

from voxfast._sniff import frames_in
from voxfast.errors import AudioFileError

Look = Callable[[int, int], bytes]
"""Gives the bytes at an offset, at most so many; none where there are none."""

BEGINNING = 64
"""Bytes that tell a beginning."""
_SCANNED = 1 << 20
_CHUNK = 1 << 16
_MOST_FOUND = 1000
_MOST_BOXES = 100_000

# (container, magic number, its offset, what stands there). The magic number alone is not enough:
# four bytes are found by chance in every few gigabytes of compressed audio.
_STARTS = tuple(
    (kind, magic, at, re.compile(start, re.DOTALL))
    for kind, magic, at, start in (
        ("flac", b"fLaC", 0, rb"fLaC[\0\x80]\0\0\x22"),
        ("ogg", b"OggS\0\x02", 0, rb"OggS\0\x02\0{8}"),
        ("matroska", b"\x1aE\xdf\xa3", 0, rb"\x1aE\xdf\xa3[\x01-\xff].{0,7}?\x42\x86\x81\x01"),
        ("mov", b"ftyp", 4, rb"\0\0[\0-\x03].ftyp[ -~]{4}"),
        ("aiff", b"FORM", 0, rb"FORM....AIF[FC]"),
        ("wav", b"RIFF", 0, rb"RIFF....WAVE"),
        ("wav", b"RF64", 0, rb"RF64....WAVE"),
        ("avi", b"RIFF", 0, rb"RIFF....AVI LIST"),
        ("caf", b"caff", 0, rb"caff\0\x01\0\0desc"),
        ("au", b".snd", 0, rb"\.snd\0\0......\0\0\0[\x01-\x1b]"),
        ("w64", b"riff\x2e\x91", 0, rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"),
        ("asf", b"\x30\x26\xb2\x75", 0, rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
        ("flv", b"FLV\x01", 0, rb"FLV\x01[\x01\x04\x05]\0\0\0\x09"),
        ("amr", b"#!AMR", 0, rb"#!AMR(?:-WB)?\n"),
        ("wv", b"wvpk", 0, rb"wvpk....[\x02-\x10]\x04\0.....\0\0\0\0"),
        ("tta", b"TTA1", 0, rb"TTA1[\x01\x02]\0"),
        ("ape", b"MAC ", 0, rb"MAC [\x80-\xff]\x0f\0\0"),
        ("voc", b"Creative V", 0, rb"Creative Voice File\x1a"),
        ("mp3", b"Info\0\0\0", 36, rb"\xff[\xe2-\xff].{34}Info\0{3}"),
        ("mp3", b"Xing\0\0\0", 36, rb"\xff[\xe2-\xff].{34}Xing\0{3}"),
        ("mp3", b"Info\0\0\0", 21, rb"\xff[\xe2-\xff].{19}Info\0{3}"),
        ("mp3", b"Xing\0\0\0", 21, rb"\xff[\xe2-\xff].{19}Xing\0{3}"),
        ("mp3", b"Info\0\0\0", 13, rb"\xff[\xe2-\xff].{11}Info\0{3}"),
        ("mp3", b"Xing\0\0\0", 13, rb"\xff[\xe2-\xff].{11}Xing\0{3}"),
    )
)
# In these, FFmpeg resynchronises at the next frame after any garbage, so the last packet may lie
# behind another recording.
_FRAMED = ("mp3", "aac", "ac3", "eac3", "mpegts", "mpeg", "amr")


class Scanner:
    """Finds the beginnings of recordings in bytes that pass by.

    Args:
        offset: of the first byte.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._data = b""

    def step(self, data: bytes) -> Iterator[tuple[int, str]]:
        """Take more bytes; offsets and containers of the beginnings that end in them."""
        kept = len(self._data)
        self._data += data
        found = {
            (place, kind)
            for kind, magic, at, start in _STARTS
            for place in _places(self._data, magic, at)
            # One that ended before was found before.
            if (match := start.match(self._data, place)) and match.end() > kept
        }
        yield from sorted((self._offset + place, kind) for place, kind in found)
        passed = max(0, len(self._data) - BEGINNING)
        self._data, self._offset = self._data[passed:], self._offset + passed


class Watcher:
    """Reads a pipe for FFmpeg, and takes note of the beginnings of recordings in it."""

    def __init__(self, some: Callable[[int], bytes]) -> None:
        self._some = some
        self._scanner = Scanner()
        self._found: dict[str, list[int]] = {}  # offsets by container
        self._tail, self._count = b"", 0

    def some(self, most: int) -> bytes:
        """1 to ``most`` bytes; nothing at the end."""
        data = self._some(most)
        self._count += len(data)
        self._tail = self._tail[-_CHUNK:] + data
        for at, kind in self._scanner.step(data):
            offsets = self._found.setdefault(kind, [])
            # The latest one is always kept: it tells that there is one behind the last packet.
            offsets[_MOST_FOUND:] = [at]
        return data

    def second(self, kind: str, first: int, last: range) -> int | None:
        """At the end of the first recording: as :func:`second_recording`."""
        tail = self._tail
        while len(tail) < _SCANNED and (data := self.some(_CHUNK)):
            tail += data
        begin = first if kind == "mov" else _behind(kind, first, last)
        beginnings = sorted((at, kind) for kind, places in self._found.items() for at in places)
        found = _first_unread(beginnings, kind, begin)
        at = max(self._count - len(tail), _frames_behind(kind, last))
        return found or _frames(tail[len(tail) - (self._count - at) :], at, kind)


def second_recording(kind: str, first: int, last: range, look: Look) -> int | None:
    """Where another recording begins behind the first one of a file.

    Args:
        kind: FFmpeg's name of the first one's container.
        first: offset of its first packet.
        last: bytes of its last good packet.

    Returns:
        An offset in bytes; None if there is no other, or where FFmpeg reads it, too.
    """
    begin = _end_of_boxes(look) if kind == "mov" else _behind(kind, first, last)
    found = _first_unread(_beginnings(look, begin), kind, begin)
    at = max(begin, _frames_behind(kind, last))
    return found or _frames(look(at, _SCANNED), at, kind)


def _behind(kind: str, first: int, last: range) -> int:
    """Where to look for beginnings: behind the last packet, if that is the first recording's."""
    return first if kind in _FRAMED else last.start + 1


def _frames_behind(kind: str, last: range) -> int:
    """Where to look for frames; FFmpeg's last packet of FLAC includes all following bytes."""
    return last.start if kind == "flac" else last.stop


def _first_unread(beginnings: Iterable[tuple[int, str]], kind: str, after: int) -> int | None:
    """The first beginning from ``after`` on; of MP3 within MP3, FFmpeg reads them all."""
    is_read = kind == "mp3"
    return next(
        (at for at, other in beginnings if at >= after and not (is_read and other == "mp3")), None
    )


def _frames(data: bytes, at: int, kind: str) -> int | None:
    """Where frames of another kind begin in ``data``, the bytes from ``at`` on."""
    found = frames_in(data)
    return None if found is None or found[1] == kind else at + found[0]


def beginning(head: bytes) -> str | None:
    """The container that begins with ``head``, :data:`BEGINNING` bytes; None: none is known."""
    return next((kind for kind, _, _, start in _STARTS if start.match(head)), None)


def unread(name: str, at: int | None = None) -> AudioFileError:
    """The error of a recording behind the first one, from byte ``at`` on."""
    place = "" if at is None else f", from byte {at} on"
    return AudioFileError(
        f"{name} holds another recording behind the first{place}, of which audio may be missing: "
        f"cut it there, and give both"
    )


def _beginnings(look: Look, at: int) -> Iterator[tuple[int, str]]:
    """All that begin from ``at`` on."""
    scanner = Scanner(at)
    while data := look(at, _SCANNED):
        yield from scanner.step(data)
        at += len(data)


def _places(data: bytes, magic: bytes, at: int) -> Iterator[int]:
    """Where a beginning may be that has ``magic`` at the offset ``at``."""
    place = data.find(magic)
    while place >= 0:
        if place >= at:
            yield place - at
        place = data.find(magic, place + 1)


def _end_of_boxes(look: Look) -> int:
    """Where the boxes of a file end (ISO 14496-12), or those of another one begin."""
    at = 0
    for _ in range(_MOST_BOXES):
        box = look(at, 16)
        size = int.from_bytes(box[:4], "big")
        if size == 1:
            size = int.from_bytes(box[8:16], "big")
        is_box = len(box) >= 8 and all(32 <= byte < 127 for byte in box[4:8])
        if not is_box or size < 8 or (at and box[4:8] == b"ftyp") or not look(at + size - 1, 1):
            break
        at += size
    return at
