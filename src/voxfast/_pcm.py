"""Uncompressed audio read from a byte stream as it comes: WAV (RIFF, RF64) and raw PCM.

Works on anything with ``read``, a pipe included: nothing is sought, and no more is held
than one block. WAV follows the RIFF layout of Microsoft's "Multimedia Programming
Interface and Data Specifications 1.0" and EBU Tech 3306 (RF64).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from voxfast.errors import AudioFileError

Frames = npt.NDArray[np.float32]
SampleFormat = Literal["u8", "s16le", "s24le", "s32le", "f32le", "f64le"]

SAMPLE_FORMATS: tuple[SampleFormat, ...] = get_args(SampleFormat)
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
MOST_CHANNELS = 256

_WIDTHS: dict[SampleFormat, int] = {
    "u8": 1,
    "s16le": 2,
    "s24le": 3,
    "s32le": 4,
    "f32le": 4,
    "f64le": 8,
}
_FORMAT_PCM, _FORMAT_FLOAT, _FORMAT_EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
# The rest of the GUID in WAVE_FORMAT_EXTENSIBLE, after the two bytes of the format tag.
_EXTENSIBLE_GUID = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples lie in bytes: rate in Hz, channels interleaved."""

    rate: int
    channels: int
    sample_format: SampleFormat

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * _WIDTHS[self.sample_format]


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


class UnsupportedWavError(AudioFileError):
    """A sound WAV header for a codec that is not plain PCM (ADPCM, mu-law, ...)."""


class ByteReader:
    """Reads a byte stream, a file or a pipe, and counts."""

    def __init__(self, stream: BinaryIO, start: bytes = b"") -> None:
        self._stream = stream
        # read1 returns what a pipe holds; read would wait until the whole amount is there.
        self._read = getattr(stream, "read1", stream.read)
        self._start = start
        self.count = 0

    def some(self, most: int) -> bytes:
        """1 to ``most`` bytes, as soon as there are any; nothing at the end."""
        if self._start:
            data, self._start = self._start[:most], self._start[most:]
        else:
            data = self._read(most)
        self.count += len(data)
        return data

    def exactly(self, wanted: int) -> bytes:
        """``wanted`` bytes; fewer only at the end of the stream."""
        parts: list[bytes] = []
        while wanted > 0 and (data := self.some(min(wanted, 1 << 16))):
            parts.append(data)
            wanted -= len(data)
        return b"".join(parts)

    def skip(self, wanted: int) -> bool:
        """Read past ``wanted`` bytes; False if the stream ends before."""
        while wanted > 0:
            data = self.some(min(wanted, 1 << 16))
            if not data:
                return False
            wanted -= len(data)
        return True


def read_wav_header(reader: ByteReader, name: str) -> WavHeader:
    """Read a WAV stream up to its first sample.

    Raises:
        UnsupportedWavError: a codec other than integer or float PCM.
        AudioFileError: anything that is not a WAV header, or only a part of one.
    """
    head = reader.exactly(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioFileError(f"{name} does not begin with a WAV header: {head!r}")
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
            raise AudioFileError(f"{name} ends inside its WAV header, in the chunk {kind!r}")
        if kind == b"fmt ":
            encoding = _parse_fmt(kept, name)
        elif kind == b"ds64" and len(kept) >= 16:
            long_size = int.from_bytes(kept[8:16], "little")
    if encoding is None:
        raise AudioFileError(f"{name}: the WAV header has no format before its samples")
    if head[:4] == b"RF64" and size == 0xFFFFFFFF and long_size is not None:
        # Writers that do not know put 0 or -1 there, too.
        promised = long_size if 0 < long_size < 1 << 62 else None
    else:
        promised = None if _is_placeholder(size) else size
    return WavHeader(encoding, promised, reader.count)


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
    kinds: dict[tuple[int, int], SampleFormat] = {
        (_FORMAT_PCM, 1): "u8",
        (_FORMAT_PCM, 2): "s16le",
        (_FORMAT_PCM, 3): "s24le",
        (_FORMAT_PCM, 4): "s32le",
        (_FORMAT_FLOAT, 4): "f32le",
        (_FORMAT_FLOAT, 8): "f64le",
    }
    if (tag, width) not in kinds or block != width * channels or (bits + 7) // 8 != width:
        raise UnsupportedWavError(
            f"{name}: WAV of format {tag:#06x} with {bits} bits in {block} bytes for "
            f"{channels} channels is not plain PCM; convert it, for example with "
            f"ffmpeg -i INPUT -f wav -c:a pcm_s16le OUTPUT"
        )
    return Encoding(rate, channels, kinds[tag, width])


def check_encoding(rate: int, channels: int, name: str) -> None:
    """Raise AudioFileError on a rate or a channel count that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioFileError(
            f"{name}: a sample rate of {rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioFileError(f"{name}: {channels} channels; expected 1 to {MOST_CHANNELS}")


def read_frames(
    reader: ByteReader,
    encoding: Encoding,
    *,
    limit: int | None,
    skipped: int = 0,
    block_frames: int,
    name: str,
) -> Iterator[Frames]:
    """The samples of a byte stream, as soon as they come.

    Args:
        limit: bytes of samples in the stream; None: all until it ends.
        skipped: how many of them lie before the reader's position.
        block_frames: the most frames in one block.

    Yields:
        [N, channels] of float32, 1 ≤ N ≤ block_frames.

    Raises:
        AudioFileError: after the last whole frame, if fewer bytes came than ``limit``, or
            if a part of a frame is left over.
    """
    frame_bytes = encoding.frame_bytes
    rest, received = b"", skipped
    while limit is None or received < limit:
        wanted = block_frames * frame_bytes - len(rest)
        data = reader.some(wanted if limit is None else min(wanted, limit - received))
        if not data:
            break
        received += len(data)
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        if whole:
            yield decode(data[:whole], encoding)
    if limit is not None and received < limit:
        raise truncated(
            name, received // frame_bytes / encoding.rate, limit // frame_bytes / encoding.rate
        )
    if rest:
        raise AudioFileError(
            f"{name} ends in the middle of a sample: {len(rest)} of {frame_bytes} bytes "
            f"are left over after {received // frame_bytes / encoding.rate:.2f} s"
        )


def truncated(name: str, got: float, promised: float | None) -> AudioFileError:
    """The error of a file that ends too early; seconds of audio."""
    whole = "" if promised is None else f" of {promised:.2f} s"
    return AudioFileError(f"{name} is cut off: only {got:.2f} s{whole} of audio could be read")


def decode(data: bytes, encoding: Encoding) -> Frames:
    """Whole frames of PCM as [N, channels] of float32; integers become -1 to 1."""
    kind = encoding.sample_format
    samples: Frames
    if kind == "u8":
        samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif kind == "s16le":
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    elif kind == "s24le":
        # Placed in the upper three bytes of 32-bit integers.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    elif kind == "s32le":
        samples = np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2**31)
    else:
        # Beyond the range of float32 becomes inf, which is reported where it is checked.
        with np.errstate(all="ignore"):
            samples = np.frombuffer(data, "<f4" if kind == "f32le" else "<f8").astype(np.float32)
    return samples.reshape(-1, encoding.channels)
