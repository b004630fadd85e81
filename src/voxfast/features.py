"""Streaming log-mel features."""

from copy import copy
from typing import Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from voxfast.errors import InvalidAudioError, InvalidOptionError
from voxfast.ops import log_mel

__all__ = ["HOP_LENGTH", "N_FFT", "LogMelStream"]

N_FFT = 400
HOP_LENGTH = 160


class LogMelStream:
    """Log-mel frames of a stream of 16 kHz audio, each as soon as its samples are complete.

    Parity: for any split of the samples, the concatenated results of ``step`` equal, bit for
    bit, ``log_mel`` of ``left_padding`` zeros and all samples. (On a GPU stream they are equal
    up to float32 rounding: MLX guarantees no more for its products.)

    The tail are the samples from the start of the next frame on: 240 to 399 samples after the
    first frame. Earlier samples are dropped in the step that computes their last frame. Other
    padding (reflected samples, zeros at the end) is fed like audio.

    Args:
        left_padding: zeros before the first sample, in samples.
        n_mels, log_floor, shift, scale: as in :func:`voxfast.ops.log_mel`.

    Raises:
        InvalidOptionError: for a negative padding.
        ValueError: for the other options, as ``log_mel``.
    """

    def __init__(
        self,
        *,
        left_padding: int = 0,
        n_mels: int = 128,
        log_floor: float | None = None,
        shift: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        if left_padding < 0:
            raise InvalidOptionError(
                f"[LogMelStream] left_padding must be 0 or more samples; got {left_padding}"
            )
        self._n_mels = n_mels
        self._log_floor = log_floor
        self._shift = shift
        self._scale = scale
        self.frames(np.zeros(N_FFT, dtype=np.float32))  # validates the options
        # The tail is the first `_length` samples of `_tail`.
        self._tail = np.zeros(max(N_FFT, left_padding), dtype=np.float32)
        self._length = left_padding

    def step(self, samples: npt.NDArray[np.float32]) -> mx.array:
        """Consume the next samples; return the frames that they complete.

        Args:
            samples: [N] of float32, mono at 16 kHz; N may be 0. They are copied.

        Returns:
            [T, n_mels] of float32, lazy; T may be 0.

        Raises:
            InvalidAudioError: for another type, dtype or number of dimensions; the stream is
                unchanged.
        """
        audio = self.take(samples)
        return mx.zeros((0, self._n_mels)) if audio is None else self.frames(audio)

    def take(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Consume the next samples, as :meth:`step`; return those of the frames they complete.

        Returns:
            [N] for :meth:`frames`, which is the rest of the step; None if no frame is complete.
        """
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            raise InvalidAudioError(
                "[LogMelStream] samples must be a NumPy array [N] of float32; got "
                + (
                    f"shape {samples.shape} and dtype {samples.dtype}"
                    if isinstance(samples, np.ndarray)
                    else type(samples).__name__
                )
            )
        length = self._length + samples.size
        if length < N_FFT:
            self._tail[self._length : length] = samples
            self._length = length
            return None
        audio = np.concatenate((self._tail[: self._length], samples))
        n_frames = (length - N_FFT) // HOP_LENGTH + 1
        rest = audio[n_frames * HOP_LENGTH :]
        if self._tail.size > N_FFT:  # the padding is used up
            self._tail = np.empty(N_FFT, dtype=np.float32)
        self._tail[: rest.size] = rest
        self._length = rest.size
        return audio

    def frames(self, audio: npt.NDArray[np.float32]) -> mx.array:
        """The frames of samples that were taken, also of several streams with the same options.

        Args:
            audio: [..., N] of float32, from :meth:`take`.

        Returns:
            [..., T, n_mels] of float32, lazy.
        """
        return log_mel(
            mx.array(audio),
            n_mels=self._n_mels,
            log_floor=self._log_floor,
            shift=self._shift,
            scale=self._scale,
        )

    def copy(self) -> Self:
        """Another stream that goes on from here."""
        new = copy(self)
        new._tail = self._tail.copy()
        return new
