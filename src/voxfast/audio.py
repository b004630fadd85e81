"""Audio in: files, pipes, arrays. All of it leaves here as float32 at 16 kHz.

Files are decoded and resampled block by block, so that a file of any length takes the memory
of one block. Whatever is wrong with a file is raised *after* everything good has been
yielded: a recording that is cut off after an hour gives that hour, and then an error.
"""

import logging
import math
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from voxfast import _pcm, _samples
from voxfast._channels import Channel, Mender, Mixer, check_channel, select
from voxfast._pcm import Block, SampleFormat
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

Samples = npt.NDArray[np.float32]
_log = logging.getLogger(__name__)


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
    return _samples.check(samples)


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
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    block_seconds: float = 1.0,
    channel: Channel = "mix",
) -> Iterator[Samples]:
    """Read an audio file, or the audio track of a video, block by block.

    WAV and raw PCM are read here; FFmpeg, through PyAV, decodes the rest: FLAC, Ogg, Opus, MP3,
    M4A, MP4, MOV, WebM, Matroska, AAC, WMA, AIFF, CAF, AU, W64, AVI, AMR and others. The samples
    do not depend on ``block_seconds``. Encoder delay and padding are cut where the container
    tells them. A few samples that are no audio (NaN, infinity, beyond ±16) become 0, and the
    log says so.

    Args:
        path: a regular file, or an address (s3://, gs://, http://, https://, file://), which fsspec
            and its package for that store read.
        start: seconds to leave out at the beginning.
        block_seconds: length of the blocks, at least one sample.
        channel: ``"mix"`` averages the channels, but takes the loudest one where the average
            would lose it (opposite phase, one live channel among many); a number from 1 takes
            that channel; ``"each"`` takes all of them.

    Yields:
        [round(block_seconds · 16000)] of float32 at 16 kHz, the last block may be shorter;
        with ``"each"`` [round(block_seconds · 16000), channels].

    Raises:
        AudioFileError: while iterating: before the first block if the file is missing, a
            folder, empty, encrypted, without audio, or has no such channel; after all good
            blocks if it is cut off or damaged, or if more than 1 % of its samples are no
            audio. The message says how much could be read.
        InvalidAudioError: if an option is out of range.
    """
    if not (math.isfinite(start) and start >= 0):
        raise InvalidAudioError(f"start must be seconds from 0; got {start}")
    block_samples = _block_samples(block_seconds)
    check_channel(channel)
    from voxfast import _sources

    with _sources.open_path(path, start) as source:
        samples = _convert(source.blocks, os.fspath(path), start, channel)
        yield from _split(samples, block_samples)


def load_audio(
    path: str | os.PathLike[str], *, start: float = 0.0, channel: Channel = "mix"
) -> Samples:
    """Read a whole audio file as [N] of float32, mono, 16 kHz; see :func:`stream_file`.

    With ``channel="each"`` it is [N, channels].

    Raises:
        AudioFileError: as :func:`stream_file`; a damaged file gives nothing here.
    """
    blocks = stream_file(path, start=start, block_seconds=60.0, channel=channel)
    return np.concatenate([*blocks])


def duration(path: str | os.PathLike[str]) -> float | None:
    """Seconds of audio that a file promises; None if it does not say, or is at an address.

    Raises:
        AudioFileError: if the file is missing, a folder, empty, encrypted, or not audio.
    """
    from voxfast import _sources

    with _sources.open_path(path) as source:
        return source.seconds()


def stream_pcm(
    stream: BinaryIO,
    *,
    raw_rate: int | None = None,
    raw_format: SampleFormat | None = None,
    raw_channels: int | None = None,
    channel: Channel = "mix",
    block_seconds: float = 0.08,
    name: str = "the input stream",
) -> Iterator[Samples]:
    """Read audio from a pipe as it comes: every container that :func:`stream_file` reads.

    Blocks are yielded as soon as their bytes arrive. Streaming WAV headers with an unknown
    length, as ffmpeg, SoX, arecord and GStreamer write them, are understood. A container that
    cannot be decoded as it comes (an MP4 file with its index at the end) is held in a temporary
    file first. What begins like no container is taken for raw PCM, s16le at 16 kHz and mono,
    and the log says so; with any of the ``raw_`` options, it is raw PCM without a look at it.

    Args:
        stream: an open binary file or pipe, at its beginning; a non-blocking one is waited for.
        raw_rate: sample rate of raw PCM in Hz; default 16000.
        raw_format: u8, s8, mulaw, alaw, or s16, s24, s32, f32, f64 with le or be; of raw PCM;
            default s16le.
        raw_channels: interleaved channels of raw PCM; default 1.
        channel: see :func:`stream_file`.
        block_seconds: length of the longest block.
        name: what errors call the stream.

    Yields:
        [N] of float32 at 16 kHz, N ≥ 1; with ``channel="each"`` [N, channels].

    Raises:
        AudioFileError: while iterating: before the first block if the stream is known to be
            something else than audio, or cannot be decoded; after all good blocks if it ends
            before the length that it promised, or in the middle of a sample, or is damaged.
        InvalidAudioError: if an option is out of range.
    """
    if raw_format is not None and raw_format not in _pcm.SAMPLE_FORMATS:
        raise InvalidAudioError(
            f"raw format {raw_format!r}; expected one of {', '.join(_pcm.SAMPLE_FORMATS)}"
        )
    if raw_rate is not None and not _pcm.LOWEST_RATE <= raw_rate <= _pcm.HIGHEST_RATE:
        raise InvalidAudioError(
            f"raw rate {raw_rate} Hz; expected {_pcm.LOWEST_RATE} to {_pcm.HIGHEST_RATE}"
        )
    if raw_channels is not None and not 1 <= raw_channels <= _pcm.MOST_CHANNELS:
        raise InvalidAudioError(f"raw channels {raw_channels}; expected 1 to {_pcm.MOST_CHANNELS}")
    check_channel(channel)
    seconds = _block_samples(block_seconds) / SAMPLE_RATE
    raw = _pcm.Encoding(raw_rate or SAMPLE_RATE, raw_channels or 1, raw_format or "s16le")
    is_raw = (raw_rate, raw_format, raw_channels) != (None, None, None)
    from voxfast import _sources

    with _sources.open_stream(
        stream, raw=raw, is_raw=is_raw, block_seconds=seconds, name=name
    ) as source:
        yield from _convert(source.blocks, name, 0.0, channel)


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
        self._rate = _RateConverter(rate)

    def step(self, samples: object) -> Samples:
        """Convert [N] more samples; see :func:`check_samples`.

        Returns:
            [M] of float32, M ≥ 0: what no later sample can change.

        Raises:
            InvalidAudioError: on samples that are no audio; the stream stays as it was.
        """
        return self._rate.step(_samples.check(samples))

    def finish(self) -> Samples:
        """[M] of float32 that was held back for lack of later samples; ends the stream."""
        return self._rate.finish()


class _RateConverter:
    """:class:`Resampler` of [N], or of [N, channels] if ``channels`` is given; unchecked."""

    def __init__(self, rate: float, channels: int | None = None) -> None:
        self._empty = np.zeros((0,) if channels is None else (0, channels), np.float32)
        self._stream = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, channels or 1, dtype="float32")

    def step(self, samples: Samples) -> Samples:
        if self._stream is None or not samples.size:
            return samples
        converted: Samples = self._stream.resample_chunk(samples)
        return converted

    def finish(self) -> Samples:
        if self._stream is None:
            return self._empty
        converted: Samples = self._stream.resample_chunk(self._empty, last=True)
        return converted


class _Converter:
    """Mends, mixes and resamples the blocks of one recording, whose format may change."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel, self._name = channel, name
        self._rate = self._channels = 0
        self._mixer: Mixer | None = None
        self._converter: _RateConverter | None = None

    def step(self, rate: int, frames: _pcm.Frames) -> Iterator[Samples]:
        """Convert [N, channels] frames at ``rate``."""
        channels = frames.shape[1]
        is_each = self._channel == "each"
        if is_each and self._channels not in (0, channels):
            raise AudioFileError(
                f"{self._name} changes from {self._channels} to {channels} channels, which cannot "
                f"be taken one by one; take the mix"
            )
        if (rate, channels) != (self._rate, self._channels):
            yield from self._end_mix()
            if self._channel == "mix" and channels > 1:
                self._mixer = Mixer(rate, channels)
        if rate != self._rate:
            yield from self._end_rate()
            self._converter = _RateConverter(rate, channels if is_each else None)
        self._rate, self._channels = rate, channels
        if isinstance(self._channel, int):
            frames = select(frames, self._channel, self._name)
        elif not is_each:
            frames = frames[:, 0] if self._mixer is None else self._mixer.step(frames)
        assert self._converter is not None
        yield self._converter.step(frames)

    def finish(self) -> Iterator[Samples]:
        """What was held back."""
        yield from self._end_mix()
        yield from self._end_rate()

    def _end_mix(self) -> Iterator[Samples]:
        if self._mixer is not None and self._converter is not None:
            yield self._converter.step(self._mixer.finish())
        self._mixer = None

    def _end_rate(self) -> Iterator[Samples]:
        if self._converter is not None:
            yield self._converter.finish()


def _convert(
    blocks: Iterator[Block], name: str, start: float, channel: Channel
) -> Iterator[Samples]:
    """Mend, mix and resample; errors come after what was good before them."""
    converter, mender = _Converter(channel, name), Mender(name)
    time, failure = start, None
    try:
        for rate, frames in blocks:
            frames, failure = mender.step(frames, time, rate)
            time += len(frames) / rate
            yield from (part for part in converter.step(rate, frames) if part.size)
            if failure:
                break
    except AudioFileError as error:
        failure = error
    yield from (part for part in converter.finish() if part.size)
    if note := mender.note():
        _log.warning(note)
    if failure := failure or mender.verdict():
        raise failure
    if time == start:
        raise AudioFileError(f"{name} holds no audio")


def _split(blocks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Blocks of exactly ``size`` samples; the last may be shorter, before an error, too."""
    rest: Samples | None = None
    failure: AudioFileError | None = None
    try:
        for block in blocks:
            rest = block if rest is None or not len(rest) else np.concatenate([rest, block])
            whole = len(rest) - len(rest) % size
            for at in range(0, whole, size):
                yield rest[at : at + size]
            rest = rest[whole:]
    except AudioFileError as error:
        failure = error
    if rest is not None and len(rest):
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
