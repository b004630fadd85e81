"""How much audio a compressed or foreign file promises, beyond what libsndfile says.

libsndfile shortens the frame count of a cut-off file to what is left of it, and guesses
that of an MP3 file without an index. So that a file that ends too early is not taken for
a short one, the containers are looked at here.
"""

import mmap
import os
import re

import soundfile

# libsndfile's frame count of a stream of unknown length is the largest 64-bit number.
_UNKNOWN_FRAMES = 1 << 62
_MP3_TOLERANCE = 0.1
_BITRATES = {  # kbit/s of Layer III, by MPEG version: 1, or 2 and 2.5 (ISO 11172-3, 13818-3)
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
# A line of libsndfile's log about a chunk of samples: "data : PROMISED (should be PRESENT)".
_SHORT_CHUNK = re.compile(
    r"^\s*(?:data|SSND|riff|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE
)


def known_frames(source: soundfile.SoundFile) -> int | None:
    """libsndfile's frame count, or None if it has none."""
    return None if source.frames >= _UNKNOWN_FRAMES else int(source.frames)


def promised_frames(source: soundfile.SoundFile, file: int) -> int | None:
    """Frames that the file says it has; None if it does not say.

    Args:
        source: the open file, for its format and its frame count.
        file: its descriptor, which libsndfile reads from; its position is not touched.
    """
    frames = known_frames(source)
    if frames is None:
        return None
    if source.format == "MP3":
        return frames if _has_mp3_index(file) else _count_mp3(file)
    if source.format in ("FLAC", "OGG"):
        return frames
    match = _SHORT_CHUNK.search(source.extra_info)
    if match is None or not 0 < int(match[2]) < int(match[1]) < 0x7FFF0000:
        return frames
    return frames * int(match[1]) // int(match[2])


def tolerance(source: soundfile.SoundFile) -> int:
    """Frames by which a sound file may fall short of its promise: encoder padding."""
    return int(_MP3_TOLERANCE * source.samplerate) if source.format == "MP3" else 0


def ogg_is_complete(file: int) -> bool:
    """Whether an Ogg file ends with a whole page that is marked as the last (RFC 3533)."""
    most = 1 << 17  # A page is at most 65307 bytes long.
    tail = os.pread(file, most, max(0, os.fstat(file).st_size - most))
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    is_whole = len(segments) == tail[at + 26] and at + 27 + len(segments) + sum(segments) <= len(
        tail
    )
    return is_whole and bool(tail[at + 5] & 4)


def _mp3_start(head: bytes) -> int:
    """Where the first frame lies, behind an ID3v2 tag."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _has_mp3_index(file: int) -> bool:
    """Whether the first frame counts the others (a Xing, Info or VBRI header)."""
    first = os.pread(file, 256, _mp3_start(os.pread(file, 10, 0)))
    return any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))


def _mp3_frame(header: int) -> tuple[int, int] | None:
    """(bytes, samples) of a Layer III frame by its 32-bit header; None if it is none."""
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    hertz = _RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first else 576
    size = samples // 8 * _BITRATES[is_first][bitrate] * 1000 // hertz + (header >> 9 & 1)
    return size, samples


def _count_mp3(file: int) -> int | None:
    """Samples in the frames of an MP3 file, up to the first byte that is no frame."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        at, total = _mp3_start(data[:10]), 0
        while frame := _mp3_frame(int.from_bytes(data[at : at + 4], "big")):
            size, samples = frame
            if at + size > len(data):
                break
            at, total = at + size, total + samples
    return total or None
