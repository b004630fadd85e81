"""Audio in: files, pipes, arrays. All of it leaves here as float32, mono, 16 kHz.

Files are read and resampled block by block, so that a file of any length takes the memory
of one block. Whatever is wrong with a file is raised *after* everything before it has been
yielded: a recording that is cut off after an hour gives that hour, and then an error.
"""

import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from voxfast import _pcm
from voxfast._pcm import Frames, SampleFormat
from voxfast.errors import AudioFileError, InvalidAudioError

__all__ = [
    "SAMPLE_RATE",
    "Resampler",
    "check_samples",
    "duration",
    "load_audio",
    "resample",
    "stream_file",
    "stream_pcm",
]

SAMPLE_RATE = 16_000
LOUDEST = 16.0
"""Float samples beyond ±1 are merely loud; beyond ±16 they are something else."""

_OTHER_CONTAINERS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}

Samples = npt.NDArray[np.float32]


def check_samples(samples: object, sample_rate: float = SAMPLE_RATE) -> Samples:
    """Check audio from outside; the only gate through which samples reach a session.

    Args:
        samples: [N] of 16 kHz mono audio, N ≥ 0; an ``np.ndarray`` or ``mx.array`` of
            float32 (-1 to 1) or int16.
        sample_rate: what the caller believes the rate to be, in Hz.

    Returns:
        [N] of float32, contiguous; int16 divided by 32768. It may share its memory with
        ``samples``: copy what is to outlive the call.

    Raises:
        InvalidAudioError: on another type, dtype, shape or rate, on NaN or infinity, and on
            samples beyond ±16, which are integers that were stored as floats.
    """
    if sample_rate != SAMPLE_RATE:
        raise InvalidAudioError(
            f"audio at {sample_rate} Hz; a session takes {SAMPLE_RATE} Hz: convert it with "
            f"voxfast.audio.resample(samples, {sample_rate})"
        )
    return _check(samples)


def resample(samples: object, rate: float) -> Samples:
    """Convert audio from ``rate`` to 16 kHz.

    Args:
        samples: [N] of mono audio; see :func:`check_samples`.
        rate: its sample rate in Hz, 1000 to 768000.

    Returns:
        [M] of float32, M = round(N · 16000 / rate).

    Raises:
        InvalidAudioError: on samples or a rate that cannot be.
    """
    resampler = Resampler(rate)
    return np.concatenate([resampler.step(samples), resampler.finish()])


def stream_file(
    path: str | os.PathLike[str], *, start: float = 0.0, block_seconds: float = 1.0
) -> Iterator[Samples]:
    """Read an audio file block by block: WAV, FLAC, Ogg, MP3, and what libsndfile reads.

    Channels are averaged, the rate is converted. The samples do not depend on
    ``block_seconds``.

    Args:
        path: a regular file.
        start: seconds to leave out at the beginning.
        block_seconds: length of the blocks, at least one sample.

    Yields:
        [round(block_seconds · 16000)] of float32 at 16 kHz; the last block may be shorter.

    Raises:
        AudioFileError: while iterating: before the first block if the file is missing, a
            folder, empty, or not audio; after all good blocks if it is cut off, damaged, or
            holds samples that are no audio. The message says how much could be read.
        InvalidAudioError: if ``start`` or ``block_seconds`` is out of range.
    """
    if not (math.isfinite(start) and start >= 0):
        raise InvalidAudioError(f"start must be seconds from 0; got {start}")
    block_samples = _block_samples(block_seconds)
    from voxfast import _files

    with _files.open_source(path, start) as source:
        samples = _convert(source.blocks, source.rate, os.fspath(path), start)
        yield from _split(samples, block_samples)


def load_audio(path: str | os.PathLike[str], *, start: float = 0.0) -> Samples:
    """Read a whole audio file as [N] of float32, mono, 16 kHz.

    Raises:
        AudioFileError: as :func:`stream_file`; a damaged file gives nothing here.
    """
    return np.concatenate([*stream_file(path, start=start, block_seconds=60.0)])


def duration(path: str | os.PathLike[str]) -> float | None:
    """Seconds of audio that a file promises; None if its header does not say.

    Raises:
        AudioFileError: if the file is missing, a folder, empty, or not audio.
    """
    from voxfast import _files

    with _files.open_source(path) as source:
        return source.seconds


def stream_pcm(
    stream: BinaryIO,
    *,
    raw_rate: int = SAMPLE_RATE,
    raw_format: SampleFormat = "s16le",
    block_seconds: float = 0.08,
    name: str = "the input stream",
) -> Iterator[Samples]:
    """Read audio from a pipe as it comes: WAV, or raw mono PCM if there is no WAV header.

    Blocks are yielded as soon as their bytes arrive. Streaming WAV headers with an unknown
    length, as ffmpeg, SoX, arecord and GStreamer write them, are understood.

    Args:
        stream: an open binary file or pipe, at its beginning.
        raw_rate: sample rate of raw PCM in Hz; a WAV header says its own.
        raw_format: one of u8, s16le, s24le, s32le, f32le, f64le; of raw PCM.
        block_seconds: length of the longest block.
        name: what errors call the stream.

    Yields:
        [N] of float32 at 16 kHz, N ≥ 1.

    Raises:
        AudioFileError: while iterating: before the first block if the header is damaged, or
            that of another container; after all good blocks if the stream ends before the
            length that its header promised, or in the middle of a sample.
        InvalidAudioError: if an option is out of range.
    """
    if raw_format not in _pcm.SAMPLE_FORMATS:
        raise InvalidAudioError(
            f"raw format {raw_format!r}; expected one of {', '.join(_pcm.SAMPLE_FORMATS)}"
        )
    if not _pcm.LOWEST_RATE <= raw_rate <= _pcm.HIGHEST_RATE:
        raise InvalidAudioError(
            f"raw rate {raw_rate} Hz; expected {_pcm.LOWEST_RATE} to {_pcm.HIGHEST_RATE}"
        )
    seconds = _block_samples(block_seconds) / SAMPLE_RATE
    magic = _pcm.ByteReader(stream).exactly(4)
    if magic in _OTHER_CONTAINERS:
        raise AudioFileError(
            f"{name} is {_OTHER_CONTAINERS[magic]}, which cannot be read from a pipe; give the "
            f"file's name, or decode it: ffmpeg -i INPUT -f wav - | voxfast transcribe -"
        )
    reader = _pcm.ByteReader(stream, start=magic)
    encoding, limit = _pcm.Encoding(raw_rate, 1, raw_format), None
    if magic in (b"RIFF", b"RF64"):
        header = _pcm.read_wav_header(reader, name)
        encoding, limit = header.encoding, header.data_bytes
    frames = _pcm.read_frames(
        reader,
        encoding,
        limit=limit,
        block_frames=max(1, round(seconds * encoding.rate)),
        name=name,
    )
    yield from _convert(frames, encoding.rate, name, 0.0)


def _check(samples: object) -> Samples:
    """:func:`check_samples` for any rate."""
    if not isinstance(samples, np.ndarray):
        samples = _from_mlx(samples)
    if isinstance(samples, np.ma.MaskedArray):
        raise InvalidAudioError(
            "a masked array; say what stands in for masked samples: samples.filled(0)"
        )
    samples = np.asarray(samples)  # of any other subclass, a memory map for one
    if samples.dtype not in (np.float32, np.int16):
        raise InvalidAudioError(_dtype_message(samples))
    if samples.ndim != 1:
        raise InvalidAudioError(_shape_message(samples.shape))
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    samples = np.ascontiguousarray(samples)
    if fault := _fault(samples):
        raise InvalidAudioError(f"sample {fault[0]} is {samples[fault[0]]}: {fault[1]}")
    return samples


def _from_mlx(samples: object) -> np.ndarray[Any, Any]:
    """An ``mx.array`` of float32 or int16 as NumPy's; everything else is an error."""
    # Imported late, so that reading files takes no MLX.
    import mlx.core as mx

    if not isinstance(samples, mx.array):
        raise InvalidAudioError(
            f"audio as {type(samples).__name__}; expected a NumPy array or mx.array of float32 "
            f"or int16 (bytes: np.frombuffer(data, np.int16); lists: np.array(data, np.float32))"
        )
    if samples.dtype not in (mx.float32, mx.int16):
        raise InvalidAudioError(
            f"audio of {samples.dtype}; expected float32 (-1 to 1) or int16: convert floats "
            f"with samples.astype(mx.float32), 16-bit integers with samples.astype(mx.int16)"
        )
    try:
        return np.array(samples)
    except RuntimeError as error:
        raise InvalidAudioError(
            f"an mx.array that cannot be evaluated here ({error}); call mx.eval(samples) on the "
            f"thread that made it"
        ) from error


def _fault(samples: Samples) -> tuple[int, str] | None:
    """The index of the first sample that is no audio, and why; None if all are."""
    # A NaN fails this comparison, too.
    if not samples.size or -LOUDEST <= samples.min() <= samples.max() <= LOUDEST:
        return None
    index = int(np.argmax(~(np.abs(samples) <= LOUDEST)))
    if np.isfinite(samples[index]):
        return index, (
            f"float audio lies within -1 to 1, and beyond ±{LOUDEST:g} it looks like integers "
            f"stored as floats; divide by 32768 (16-bit) or 2147483648 (32-bit)"
        )
    return index, "audio must be finite; look for a division by zero or uninitialised memory"


def _dtype_message(samples: np.ndarray[Any, Any]) -> str:
    """What to do about a dtype that is neither float32 nor int16."""
    if samples.dtype.kind == "f":
        remedy = "convert it with samples.astype(np.float32)"
    elif samples.dtype.kind in "iu" and samples.dtype.itemsize > 1:
        bits = 8 * samples.dtype.itemsize
        remedy = (
            f"convert it with samples.astype(np.int16) if its values are 16-bit, or "
            f"(samples / 2**{bits - 1}).astype(np.float32) if they span all {bits} bits"
        )
    elif samples.dtype == np.uint8:
        remedy = (
            "convert 8-bit audio with ((samples.astype(np.float32) - 128) / 128), "
            "raw bytes with samples.view(np.int16)"
        )
    else:
        remedy = "give real audio samples"
    return f"audio of dtype {samples.dtype}; expected float32 (-1 to 1) or int16: {remedy}"


def _shape_message(shape: tuple[int, ...]) -> str:
    """What to do about an array that is not one-dimensional."""
    if len(shape) == 2 and 1 in shape:
        remedy = "make it so with samples.reshape(-1)"
    elif len(shape) == 2 and shape[1] <= 8:
        remedy = "average the channels with samples.mean(axis=1, dtype=np.float32)"
    elif len(shape) == 2:
        remedy = "average the channels with samples.mean(axis=0, dtype=np.float32)"
    else:
        remedy = "feed one stream at a time"
    return f"audio of shape {list(shape)}; expected one dimension, mono: {remedy}"


class Resampler:
    """Converts a live mono stream to 16 kHz, for microphones and calls at another rate.

    Parity: for any split of the samples, the outputs of :meth:`step` and :meth:`finish`
    joined are those of one step over all of them (libsoxr's streaming interface, HQ).

    Raises:
        InvalidAudioError: unless ``rate``, in Hz, is 1000 to 768000.
    """

    def __init__(self, rate: float) -> None:
        if not _pcm.LOWEST_RATE <= rate <= _pcm.HIGHEST_RATE:
            raise InvalidAudioError(
                f"a sample rate of {rate} Hz; expected {_pcm.LOWEST_RATE} to {_pcm.HIGHEST_RATE}"
            )
        self._stream = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def step(self, samples: object) -> Samples:
        """Convert [N] more samples; see :func:`check_samples`.

        Returns:
            [M] of float32, M ≥ 0: what no later sample can change.

        Raises:
            InvalidAudioError: on samples that are no audio; the stream stays as it was.
        """
        checked = _check(samples)
        if self._stream is None or not checked.size:
            return checked
        converted: Samples = self._stream.resample_chunk(checked)
        return converted

    def finish(self) -> Samples:
        """[M] of float32 that was held back for lack of later samples; ends the stream."""
        empty = np.zeros(0, np.float32)
        if self._stream is None:
            return empty
        converted: Samples = self._stream.resample_chunk(empty, last=True)
        return converted


def _convert(blocks: Iterator[Frames], rate: float, name: str, start: float) -> Iterator[Samples]:
    """Average channels, check, resample; errors come after what was good before them."""
    resampler, position = Resampler(rate), 0
    failure: AudioFileError | None = None
    try:
        for block in blocks:
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
            fault = _fault(mono)
            if fault:
                index, reason = fault
                seconds = start + (position + index) / rate
                failure = AudioFileError(
                    f"{name}: the sample at {seconds:.3f} s is {mono[index]}: {reason}"
                )
                mono = mono[:index]
            position += len(mono)
            converted = resampler.step(mono)
            if converted.size:
                yield converted
            if failure:
                break
    except AudioFileError as error:
        failure = error
    converted = resampler.finish()
    if converted.size:
        yield converted
    if failure:
        raise failure
    if not position:
        raise AudioFileError(f"{name} holds no audio")


def _split(blocks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Blocks of exactly ``size`` samples; the last may be shorter, before an error, too."""
    rest = np.zeros(0, np.float32)
    failure: AudioFileError | None = None
    try:
        for block in blocks:
            rest = np.concatenate([rest, block]) if rest.size else block
            whole = len(rest) - len(rest) % size
            for at in range(0, whole, size):
                yield rest[at : at + size]
            rest = rest[whole:]
    except AudioFileError as error:
        failure = error
    if rest.size:
        yield rest
    if failure:
        raise failure


def _block_samples(seconds: float) -> int:
    """Samples in a block; raises InvalidAudioError unless there is at least one."""
    if not (math.isfinite(seconds) and seconds * SAMPLE_RATE >= 1):
        raise InvalidAudioError(
            f"block_seconds must be at least one sample, {1 / SAMPLE_RATE} s; got {seconds}"
        )
    return round(seconds * SAMPLE_RATE)
