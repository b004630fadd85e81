"""Uncompressed audio as it comes: WAV (RIFF, RF64) and raw PCM, from files and pipes.

FFmpeg reads these too, but waits for blocks of its own size, and stops where a WAV header
says so: headers of recordings that were never finished, or are longer than 4 GiB, say too
little. WAV follows the RIFF layout of Microsoft's "Multimedia Programming Interface and Data
Specifications 1.0" and EBU Tech 3306 (RF64).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from voxfast._joined import BEGINNING, beginning, unread
from voxfast._promises import MOST_MP3_FRAME
from voxfast._sniff import frames_in, id3_bytes
from voxfast._streams import ByteReader
from voxfast.errors import AudioFileError

Frames = npt.NDArray[np.float32]
Block = tuple[int, Frames]
"""A sample rate in Hz, and [N, channels] of float32 at it."""
SampleFormat = Literal[
    "u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be",
    "f32le", "f32be", "f64le", "f64be", "mulaw", "alaw",
]  # fmt: skip

SAMPLE_FORMATS: tuple[SampleFormat, ...] = get_args(SampleFormat)
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
MOST_CHANNELS = 256

_WIDTHS = {
    "u8": 1,
    "s8": 1,
    "s16": 2,
    "s24": 3,
    "s32": 4,
    "f32": 4,
    "f64": 8,
    "mulaw": 1,
    "alaw": 1,
}
_FORMAT_EXTENSIBLE = 0xFFFE
# (format tag, bytes of a sample)
_WAV_FORMATS: dict[tuple[int, int], SampleFormat] = {
    (1, 1): "u8",
    (1, 2): "s16le",
    (1, 3): "s24le",
    (1, 4): "s32le",
    (3, 4): "f32le",
    (3, 8): "f64le",
    (6, 1): "alaw",
    (7, 1): "mulaw",
}
# The rest of the GUID in WAVE_FORMAT_EXTENSIBLE, after the two bytes of the format tag.
_EXTENSIBLE_GUID = bytes.fromhex("000000001000800000aa00389b71")
_LONGEST_EXTRA_CHUNK = 1 << 26
_THREE_FRAMES = 3 * MOST_MP3_FRAME
_USUAL_CHUNKS = (b"data", b"LIST", b"id3 ", b"ID3 ", b"JUNK", b"bext", b"fact", b"cue ", b"RIFF")
_CHUNK_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples lie in bytes: rate in Hz, channels interleaved."""

    rate: int
    channels: int
    sample_format: SampleFormat

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * _WIDTHS[self.sample_format.removesuffix("le").removesuffix("be")]


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What stands before the samples of a WAV stream.

    Attributes:
        encoding: layout of the samples.
        data_bytes: bytes of samples that are promised; None if the writer did not know,
            as is usual on a pipe.
        offset: bytes before the first sample.
    """

    encoding: Encoding
    data_bytes: int | None
    offset: int


class CompressedWavError(AudioFileError):
    """A sound WAV header for a codec that is not plain PCM (ADPCM, MP3, ...)."""


def read_wav_header(reader: ByteReader, name: str) -> WavHeader:
    """Read a WAV stream up to its first sample.

    Raises:
        CompressedWavError: a codec other than integer, float, A-law or mu-law PCM.
        AudioFileError: anything that is not a WAV header, or only a part of one.
    """
    start = reader.count
    head = reader.exactly(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        raise CompressedWavError(f"{name} does not begin with a WAV header: {head!r}")
    encoding: Encoding | None = None
    long_size: int | None = None
    while True:
        chunk = reader.exactly(8)
        if len(chunk) < 8:
            raise AudioFileError(f"{name} ends inside its WAV header, before any samples")
        kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if kind == b"data":
            break
        kept = reader.exactly(min(size, 40)) if kind in (b"fmt ", b"ds64") else b""
        # Chunks are padded to an even length.
        if not reader.skip(size - len(kept) + size % 2):
            raise AudioFileError(
                f"{name} ends inside its WAV header, in the chunk {kind.decode('latin-1')!r}"
            )
        if kind == b"fmt ":
            encoding = _parse_fmt(kept, name)
            reader.forget()  # It need not be read again, by another decoder.
        elif kind == b"ds64" and len(kept) >= 16:
            long_size = int.from_bytes(kept[8:16], "little")
    if encoding is None:
        raise AudioFileError(f"{name}: the WAV header has no format before its samples")
    if head[:4] != b"RIFF" and size == 0xFFFFFFFF and long_size is not None:
        # Writers that do not know put 0 or -1 there, too.
        promised = long_size if 0 < long_size < 1 << 62 else None
    else:
        promised = None if _is_placeholder(size) else size
    return WavHeader(encoding, promised, reader.count - start)


def _is_placeholder(size: int) -> bool:
    """Whether a 32-bit size is what writers put before a stream of unknown length.

    Seen: 0 (Python's wave), 0xFFFFFFFF and a little less (ffmpeg), 0x7FFFF000 (SoX),
    0x80000000 (arecord), 0x7FFF0000 (GStreamer).
    """
    return size == 0 or 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFFFF00


def _parse_fmt(fmt: bytes, name: str) -> Encoding:
    """The encoding that a ``fmt`` chunk describes; ``fmt`` may be cut after 40 bytes."""
    if len(fmt) < 16:
        raise AudioFileError(f"{name}: the WAV format is {len(fmt)} bytes long, not 16 or more")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", fmt[:16])
    if tag == _FORMAT_EXTENSIBLE and len(fmt) == 40 and fmt[26:] == _EXTENSIBLE_GUID:
        tag = int.from_bytes(fmt[24:26], "little")
    check_encoding(rate, channels, name)
    width = block // channels
    sample_format = _WAV_FORMATS.get((tag, width))
    if sample_format is None or block != width * channels or (bits + 7) // 8 != width:
        raise CompressedWavError(
            f"{name}: WAV of format {tag:#06x} with {bits} bits in {block} bytes for "
            f"{channels} channels is not plain PCM"
        )
    return Encoding(rate, channels, sample_format)


def check_encoding(rate: int, channels: int, name: str) -> None:
    """Raise AudioFileError on a rate or a channel count that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioFileError(
            f"{name}: a sample rate of {rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioFileError(f"{name}: {channels} channels; expected 1 to {MOST_CHANNELS}")


def read_wav(
    reader: ByteReader, header: WavHeader, *, skipped: int = 0, block_seconds: float, name: str
) -> Iterator[Block]:
    """All samples of a WAV stream, whatever its header says of their number.

    Audio goes on behind the promised end if no chunk begins there: sizes wrap at 4 GiB, and
    recorders that are cut off leave an old one. Another WAV file, joined to the first, goes
    on with its own format.

    Args:
        header: what was read so far.
        skipped: bytes of samples that lie before the reader's position.
        block_seconds: length of the longest block.

    Raises:
        AudioFileError: see :func:`read_frames`.
    """
    frame_bytes, is_behind = header.encoding.frame_bytes, False
    while True:
        promised = header.data_bytes
        yield from read_frames(
            reader,
            header.encoding,
            limit=None if promised is None else promised - promised % frame_bytes,
            skipped=skipped,
            block_seconds=block_seconds,
            name=name,
            may_end_anywhere=is_behind,
        )
        skipped, is_behind = 0, True
        if promised is None:
            return
        following = _following(reader, header, name)
        if following is None:
            if promised % frame_bytes:
                raise _half_frame(name, promised % frame_bytes, frame_bytes, None)
            return
        header, frame_bytes = following, following.encoding.frame_bytes


def _following(reader: ByteReader, header: WavHeader, name: str) -> WavHeader | None:
    """What comes behind the promised samples, up to more of them; None: nothing."""
    promised = header.data_bytes or 0
    rest = promised % header.encoding.frame_bytes
    # Chunks are padded to an even length, but not by every writer.
    starts = {rest + promised % 2, rest, 0}
    while len(head := reader.peek(BEGINNING + rest + 1)) >= 8:
        if any(beginning(head[at:]) not in (None, "wav") for at in starts):
            raise unread(name)
        if tag := next((at + size for at in starts if (size := id3_bytes(head[at:]))), 0):
            starts = {0}
            if not reader.skip(tag):
                return None
            continue
        start = next((at for at in sorted(starts, reverse=True) if _is_chunk(head[at:])), None)
        if start is None:
            frames = frames_in(reader.peek(_THREE_FRAMES))
            if frames is not None and frames[0] in starts:
                raise unread(name)
            return WavHeader(header.encoding, None, 0)
        head, starts = head[start:], {0}
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            reader.skip(start)
            return read_wav_header(reader, name)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"data":
            reader.skip(start + 8)
            return WavHeader(header.encoding, None if _is_placeholder(size) else size, 0)
        if not reader.skip(start + 8 + size + size % 2):
            return None
    return None


def _is_chunk(head: bytes) -> bool:
    """Whether a RIFF chunk begins so, rather than a sample."""
    kind, size = head[:4], int.from_bytes(head[4:8], "little")
    is_name = len(head) >= 8 and all(chr(byte) in _CHUNK_LETTERS for byte in kind)
    return is_name and (size < _LONGEST_EXTRA_CHUNK or kind in _USUAL_CHUNKS)


def read_frames(
    reader: ByteReader,
    encoding: Encoding,
    *,
    limit: int | None,
    skipped: int = 0,
    block_seconds: float,
    name: str,
    may_end_anywhere: bool = False,
) -> Iterator[Block]:
    """The samples of a byte stream, as soon as they come.

    Args:
        limit: bytes of samples in the stream; None: all until it ends.
        skipped: how many of them lie before the reader's position.
        block_seconds: length of the longest block.
        may_end_anywhere: whether the end may cut a frame.

    Yields:
        The rate, and [N, channels] of float32, N ≥ 1.

    Raises:
        AudioFileError: after the last whole frame, if fewer bytes came than ``limit``, or
            if a part of a frame is left over.
    """
    frame_bytes = encoding.frame_bytes
    block_bytes = max(1, round(block_seconds * encoding.rate)) * frame_bytes
    rest, received = b"", skipped
    while limit is None or received < limit:
        wanted = block_bytes - len(rest)
        data = reader.some(wanted if limit is None else min(wanted, limit - received))
        if not data:
            break
        received += len(data)
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            yield encoding.rate, decode(data[:whole], encoding)
    if limit is not None and received < limit:
        raise truncated(
            name, received // frame_bytes / encoding.rate, limit // frame_bytes / encoding.rate
        )
    if rest and not may_end_anywhere:
        seconds = received // frame_bytes / encoding.rate
        raise _half_frame(name, len(rest), frame_bytes, seconds)


def _half_frame(name: str, rest: int, whole: int, seconds: float | None) -> AudioFileError:
    """The error of a stream that ends in the middle of a frame."""
    after = "" if seconds is None else f" after {seconds:.2f} s"
    return AudioFileError(
        f"{name} ends in the middle of a sample: {rest} of {whole} bytes are left over{after}"
    )


def truncated(name: str, got: float, promised: float | None) -> AudioFileError:
    """The error of a file that ends too early; seconds of audio."""
    whole = "" if promised is None else f" of {promised:.2f} s"
    return AudioFileError(f"{name} is cut off: only {got:.2f} s{whole} of audio could be read")


def decode(data: bytes, encoding: Encoding) -> Frames:
    """Whole frames of PCM as [N, channels] of float32; integers become -1 to 1."""
    kind = encoding.sample_format
    order = ">" if kind.endswith("be") else "<"
    samples: Frames
    if kind in ("mulaw", "alaw"):
        samples = _expand_law(np.frombuffer(data, np.uint8), is_mu=kind == "mulaw")
    elif kind == "u8":
        samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif kind.startswith("s24"):
        # Placed in the upper three bytes of 32-bit integers.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        upper = slice(1, 4) if order == "<" else slice(0, 3)
        wide[:, upper] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view(f"{order}i4")[:, 0].astype(np.float32) / np.float32(2**31)
    elif kind.startswith("s"):
        width = encoding.frame_bytes // encoding.channels
        integers = np.frombuffer(data, f"{order}i{width}")
        samples = integers.astype(np.float32) / np.float32(2 ** (8 * width - 1))
    else:
        # Beyond the range of float32 becomes inf, which is reported where it is checked.
        with np.errstate(all="ignore"):
            width = encoding.frame_bytes // encoding.channels
            samples = np.frombuffer(data, f"{order}f{width}").astype(np.float32)
    return samples.reshape(-1, encoding.channels)


def _expand_law(codes: npt.NDArray[np.uint8], *, is_mu: bool) -> Frames:
    """Logarithmic 8-bit codes as samples (ITU-T G.711)."""
    code = np.arange(256)
    code = code ^ 0xFF if is_mu else code ^ 0x55
    segment, step = code >> 4 & 7, code & 15
    if is_mu:
        size = ((step << 3) + 132 << segment) - 132
    else:
        size = (step << 4) + 8 + np.where(segment > 0, 256, 0) << np.maximum(segment - 1, 0)
    is_negative = code & 0x80 == (0x80 if is_mu else 0)
    table = np.where(is_negative, -size, size).astype(np.float32) / np.float32(32768)
    return table[codes]
