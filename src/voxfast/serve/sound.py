"""Bytes of a live client to samples for a session."""

import numpy as np
import numpy.typing as npt

from voxfast import _pcm
from voxfast.audio import Resampler
from voxfast.errors import InvalidAudioError

__all__ = ["MOST_CHANNELS", "SoundConverter"]

MOST_CHANNELS = 8
HIGHEST_RATE = 192_000


class SoundConverter:
    """Converts a stream of bytes to mono float32 at 16 kHz.

    Parity: for any split of the bytes, the outputs of :meth:`step` and :meth:`flush` joined are
    those of one step over all of them. Half a sample at the end of a stream is dropped.

    Args:
        rate: of the audio in Hz, 1000 to 192000.
        sample_format: see :data:`voxfast._pcm.SAMPLE_FORMATS`.
        channels: interleaved, 1 to 8; their mean is taken.

    Raises:
        InvalidAudioError: for values out of these ranges.
    """

    def __init__(self, rate: int, sample_format: _pcm.SampleFormat, channels: int = 1) -> None:
        if not _pcm.LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise InvalidAudioError(
                f"a sample rate of {rate} Hz; expected {_pcm.LOWEST_RATE} to {HIGHEST_RATE}"
            )
        if sample_format not in _pcm.SAMPLE_FORMATS:
            raise InvalidAudioError(
                f"samples as {sample_format!r:.40}; expected {', '.join(_pcm.SAMPLE_FORMATS)}"
            )
        if not 1 <= channels <= MOST_CHANNELS:
            raise InvalidAudioError(f"{channels} channels; expected 1 to {MOST_CHANNELS}")
        self._encoding = _pcm.Encoding(rate, channels, sample_format)
        self._resampler = Resampler(rate)
        self._rest = b""

    @property
    def bytes_per_second(self) -> int:
        """Of the incoming audio."""
        return self._encoding.rate * self._encoding.frame_bytes

    def step(self, data: bytes) -> npt.NDArray[np.float32]:
        """Convert more bytes to [N] samples, N ≥ 0.

        Raises:
            InvalidAudioError: for NaN, infinity, and floats beyond ±16; nothing of it is taken.
        """
        data = self._rest + data
        whole = len(data) - len(data) % self._encoding.frame_bytes
        frames = _pcm.decode(data[:whole], self._encoding)
        mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
        samples = self._resampler.step(mono)
        self._rest = data[whole:]
        return samples

    def flush(self) -> npt.NDArray[np.float32]:
        """[N] samples that the resampler has held back, up to 40 ms; what follows begins anew."""
        held = self._resampler.finish()
        self._resampler = Resampler(self._encoding.rate)
        return held
