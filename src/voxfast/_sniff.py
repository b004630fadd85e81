"""What bytes are, by how they begin: a container of audio, something else by name, or unknown."""

import re
from collections.abc import Callable

from voxfast._streams import ByteReader
from voxfast.errors import AudioFileError

_LONGEST_TAG = 1 << 20

# (offset, bytes, FFmpeg's name of the demuxer)
_CONTAINERS = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    *((4, kind, "mov") for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    *((4, kind, "mov") for kind in (b"pnot", b"moof", b"styp", b"sidx")),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"FLV\x01", "flv"),
    (0, b"#!AMR", "amr"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (0, b"MAC ", "ape"),
    (0, b"APETAGEX", "mp3"),
    (0, b"Creative Voice F", "voc"),
    (0, b"NIST_1A\n", "nistsphere"),
    (0, b"\0\0\x01\xba", "mpeg"),
)
_FOREIGN = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b\x08", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"\x7fELF", "an executable"),
    (0, b"MZ\x90\0", "an executable"),
    (0, b"\xcf\xfa\xed\xfe", "an executable"),
    (0, b"\xca\xfe\xba\xbe", "an executable"),
    (0, b"SQLite format 3\0", "a database"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"MThd\0\0\0\x06", "MIDI, notes without sound"),
)
_TEXTS = (
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<", "XML or HTML"),
    ("{", "JSON"),
    ("[playlist]", "a playlist, which names its audio elsewhere"),
    ("[", "JSON"),
    ("#extm3u", "a playlist, which names its audio elsewhere"),
    ("ffconcat", "a playlist, which names its audio elsewhere"),
    ("v=0", "a session description (SDP), which names its audio elsewhere"),
    ("#!", "a script"),
)
_ARCHIVES = ("zip", "gzip", "bzip2", "xz", "zstd", "7z", "rar", "tar")

_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BITRATES = {  # kbit/s by (MPEG version is 1, layer bits), layers II and III (ISO 11172-3, 13818-3)
    (True, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 1): _LOW,
    (False, 2): _LOW,
}
_SYNC = re.compile(rb"\xff[\xe2-\xfd]")
_RATES = (44100, 48000, 32000)


def demuxer_of(reader: ByteReader, name: str) -> str | None:
    """FFmpeg's name for the container that a stream begins with; nothing is read.

    Waits for 16 bytes; for more only where those are not enough.

    Returns:
        The name; None if nothing is recognised, as with raw PCM.

    Raises:
        AudioFileError: if it is something that holds no audio, or that has to be unpacked.
    """
    head = reader.peek(16)
    is_riff = head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX")
    if is_riff and (head[8:12] == b"WAVE" or len(head) < 12):
        return "wav"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:3] == b"ID3" and len(head) > 3 and head[3] < 0x10:
        return _behind_id3(reader)
    for at, magic, demuxer in _CONTAINERS:
        if head[at : at + len(magic)] == magic and (at != 8 or head[:4] == b"FORM"):
            return demuxer
    if head[:4] == b"FORM" and len(head) < 12:
        return "aiff"
    if _is_packet(head) and all(_is_packet(reader.peek(at + 4)[at:]) for at in (188, 376)):
        return "mpegts"
    if head[:2] == b"\x0bw" and len(head) > 5 and head[5] >> 3 <= 16:
        return "ac3" if head[5] >> 3 <= 10 else "eac3"
    _refuse(reader, head, name)
    if kind := _frames_at(lambda at, size: reader.peek(at + size)[at:], 0, least=1):
        return kind
    # A radio stream that was joined between two frames, or zeros before the first.
    found = frames_in(reader.arrived())
    return None if found is None else found[1]


def _is_packet(data: bytes) -> bool:
    """Whether a packet of an MPEG transport stream begins so (ISO 13818-1)."""
    return len(data) >= 4 and data[0] == 0x47 and not data[1] & 0x80 and bool(data[3] & 0x30)


def index_is_last(reader: ByteReader) -> bool:
    """Whether an MP4 or MOV stream has its audio before the index that is needed to find it."""
    at = 0
    while at < _LONGEST_TAG:
        box = reader.peek(at + 16)[at:]
        if box[4:8] in (b"moov", b"moof") or len(box) < 8:
            return False
        size = int.from_bytes(box[:4], "big")
        if size == 1:
            size = int.from_bytes(box[8:16], "big")
        if box[4:8] == b"mdat" or size < 8:
            return True
        at += size
    return True


def _refuse(reader: ByteReader, head: bytes, name: str) -> None:
    """Raise AudioFileError if a stream is known to be something else than audio."""
    what = next((what for at, magic, what in _FOREIGN if head[at:].startswith(magic)), None)
    if what is None and head[:2] == b"BM" and head[6:10] == bytes(4):
        what = "a BMP image"
    if what is None and head and _is_text(head.replace(b"\0", b"")) and head[0]:
        more = reader.peek(512)
        if more[257:262] == b"ustar":
            what = "a tar archive"
        elif _is_text(more):
            text = more.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
            what = next((kind for start, kind in _TEXTS if text.startswith(start)), "text")
    if what is None:
        return
    is_packed = any(word in what.split() for word in _ARCHIVES)
    remedy = "; unpack it, and give the audio files in it" if is_packed else ""
    raise AudioFileError(f"{name} is {what}, not audio{remedy}")


def _is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters; the last character may be cut."""
    if any((byte < 32 and byte not in b"\t\n\r\f") or byte == 127 for byte in data):
        return False
    for cut in range(4):
        try:
            data[: len(data) - cut].decode()
            return True
        except UnicodeDecodeError:
            continue
    return False


def _behind_id3(reader: ByteReader) -> str:
    """The container that an ID3v2 tag stands before: MP3, as a rule."""
    size = id3_bytes(reader.peek(10))
    if 0 < size <= _LONGEST_TAG:
        frame = reader.peek(size + 4)[size:]
        if frame == b"fLaC":
            return "flac"
        if frame[:1] == b"\xff" and len(frame) > 1 and frame[1] & 0xF6 == 0xF0:
            return "aac"
    return "mp3"


def id3_bytes(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with ``head``, 10 bytes or more; 0 if none does."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] >= 0x10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (20 if head[5] & 0x10 else 10)


def frames_in(data: bytes) -> tuple[int, str] | None:
    """Where three MPEG audio frames in a row begin, and their demuxer; None: nowhere."""
    for match in _SYNC.finditer(data):
        at = match.start()
        if kind := _frames_at(lambda place, size: data[place : place + size], at, least=3):
            return at, kind
    return None


def _frames_at(look: Callable[[int, int], bytes], at: int, *, least: int) -> str | None:
    """The demuxer of three MPEG audio frames in a row; None: there are none.

    Args:
        look: gives so many bytes from an offset on, or fewer at the end.
        at: where the frames begin.
        least: how many there are at least, before the end.
    """
    for demuxer, size_of in (("mp3", _mp3_size), ("aac", _adts_size)):
        end, first = at, b""
        for count in range(3):
            frame = look(end, 7)
            if count >= least and len(frame) < 7:
                return demuxer
            size, first = size_of(frame), first or frame
            # The version, the layer and the sample rate stay.
            if not size or frame[1] & 0xFE != first[1] & 0xFE or (frame[2] ^ first[2]) & 0x0C:
                break
            end += size
        else:
            return demuxer
    return None


def _mp3_size(frame: bytes) -> int:
    """Bytes of the MP3 or MP2 frame that begins so; 0: none does."""
    header = int.from_bytes(frame[:4], "big")
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate = header >> 12 & 15, header >> 10 & 3
    is_frame = header >> 21 == 0x7FF and version != 1 and layer in (1, 2)
    if not is_frame or bitrate in (0, 15) or rate == 3:
        return 0
    is_first = version == 3
    hertz = _RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first or layer == 2 else 576
    return samples // 8 * _BITRATES[is_first, layer][bitrate] * 1000 // hertz + (header >> 9 & 1)


def _adts_size(frame: bytes) -> int:
    """Bytes of the AAC frame with an ADTS header that begins so; 0: none does."""
    if len(frame) < 7 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0 or frame[2] >> 2 & 15 > 12:
        return 0
    size = (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5
    return size if size > 7 else 0
