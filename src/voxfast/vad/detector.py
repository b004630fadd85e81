"""Silero's voice activity detector for 16 kHz (MIT), in NumPy.

A frame of 512 samples, 32 ms, goes through a short-time Fourier transform, four convolutions and
an LSTM: 700 000 multiplications, some 0.1 ms on one core. Each frame is computed alone and in the
same shapes, so that the probabilities are the same bits for any split of the samples.
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxfast.audio import SAMPLE_RATE, check_samples

__all__ = ["FRAME_LENGTH", "FRAME_SECONDS", "VoiceDetector"]

FRAME_LENGTH = 512
FRAME_SECONDS = FRAME_LENGTH / SAMPLE_RATE
CONTEXT = 64  # samples before a frame that are looked at again
N_FFT, HOP_LENGTH = 256, 128
HIDDEN = 128

Samples = npt.NDArray[np.float32]
Array = npt.NDArray[np.float32]


class Weights(NamedTuple):
    """The network, in the layout in which it is multiplied with columns.

    Attributes:
        convs: weight and bias [out, 1] of each convolution. The columns of a weight are the
            inputs of the oldest of three frames first; those that only ever meet the zeros
            beyond the ends are left out.
        gates: [4 · HIDDEN, 2 · HIDDEN] of the input and the hidden state together, and
            ``gates_bias``: input, forget and output gate, then the cell's.
        output: [HIDDEN] and a bias.
    """

    convs: tuple[tuple[Array, Array], ...]
    gates: Array
    gates_bias: Array
    output: Array
    output_bias: np.float32


# Frames that the convolutions get: 4, 4, 2 and 1. Of two frames, the first output sees no third
# one before; of a single one, neither neighbour.
TAPS = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))


@cache
def load_weights() -> Weights:
    """The weights that voxfast ships: ``silero_16k.npz`` of ``tools/silero_vad.py``."""
    source = resources.files(__package__) / "silero_16k.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        convs = []
        for number, taps in enumerate(TAPS):
            weight = arrays[f"conv{number}.weight"][:, :, taps]  # [out, in, 3] as in PyTorch
            rows = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
            convs.append((rows, arrays[f"conv{number}.bias"][:, None]))
        gates = np.concatenate((arrays["lstm.weight_ih"], arrays["lstm.weight_hh"]), axis=1)
        bias = arrays["lstm.bias_ih"] + arrays["lstm.bias_hh"]
        output, output_bias = arrays["output.weight"].ravel(), arrays["output.bias"][0]
    entry, forget, cell, out = np.split(np.arange(4 * HIDDEN), 4)  # PyTorch's order
    order = np.concatenate((entry, forget, out, cell))
    return Weights(tuple(convs), gates[order], bias[order], output, output_bias)


class VoiceDetector:
    """The probability that someone speaks, every 32 ms of a stream.

    Parity: for any split of the samples, the concatenated results of ``step`` are the same bits.
    """

    def __init__(self) -> None:
        self._weights = load_weights()
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample begins another stream."""
        self._tail = np.zeros(CONTEXT, np.float32)  # the context, and a frame not yet complete
        self._hidden = np.zeros(HIDDEN, np.float32)
        self._cell = np.zeros(HIDDEN, np.float32)

    def step(self, samples: object) -> Array:
        """Consume the next samples; return the probabilities of the frames that they complete.

        Args:
            samples: [N] of 16 kHz mono audio, N ≥ 0; see :func:`voxfast.audio.check_samples`.

        Returns:
            [T] of float32; entry t is of the next 512 samples. T may be 0.

        Raises:
            InvalidAudioError: as ``check_samples``; the detector is unchanged.
        """
        audio = np.concatenate((self._tail, check_samples(samples)))
        count = (len(audio) - CONTEXT) // FRAME_LENGTH
        starts = range(0, count * FRAME_LENGTH, FRAME_LENGTH)
        frames = (audio[start : start + CONTEXT + FRAME_LENGTH] for start in starts)
        probabilities = np.array([self._frame(frame) for frame in frames], np.float32)
        self._tail = audio[count * FRAME_LENGTH :].copy()
        return probabilities

    def finish(self) -> Array:
        """Probabilities of what is left, with zeros behind it: [1], or [0] if nothing is."""
        left = len(self._tail) - CONTEXT
        return self.step(np.zeros(FRAME_LENGTH - left if left else 0, np.float32))

    def _frame(self, samples: Samples) -> np.float32:
        weights = self._weights
        first, second, third, fourth = weights.convs
        x = _conv(_three_of_four(self._magnitudes(samples)), *first)
        x = _conv(_every_second(x), *second)
        x = _conv(x.T.reshape(-1, 1), *third)
        x = _conv(x, *fourth)[:, 0]
        gates = weights.gates @ np.concatenate((x, self._hidden))
        gates += weights.gates_bias
        entry, forget, output = _sigmoid(gates[: 3 * HIDDEN]).reshape(3, HIDDEN)
        self._cell = forget * self._cell + entry * np.tanh(gates[3 * HIDDEN :])
        self._hidden = output * np.tanh(self._cell)
        logit = weights.output @ np.maximum(self._hidden, 0) + weights.output_bias
        return np.float32(_sigmoid(logit))

    def _magnitudes(self, samples: Samples) -> Array:
        """[129, 4] of the spectra of a frame and its context."""
        # The last 64 samples are reflected, the last one itself not repeated.
        padded = np.concatenate((samples, samples[-2 : -CONTEXT - 2 : -1]))
        blocks = padded.reshape(-1, HOP_LENGTH)
        windowed = np.concatenate((blocks[:-1], blocks[1:]), axis=1) * self._window
        spectrum = np.fft.rfft(windowed).T
        return np.sqrt(spectrum.real**2 + spectrum.imag**2)


def _three_of_four(x: Array) -> Array:
    """Columns of a convolution over three frames with zeros at the ends: [n, 4] to [3 n, 4]."""
    columns = np.zeros((3, *x.shape), np.float32)
    columns[0, :, 1:] = x[:, :-1]
    columns[1] = x
    columns[2, :, :-1] = x[:, 1:]
    return columns.reshape(-1, x.shape[1])


def _every_second(x: Array) -> Array:
    """The same with stride 2: [n, 4] to [3 n, 2]."""
    columns = np.zeros((3, len(x), 2), np.float32)
    columns[0, :, 1] = x[:, 1]
    columns[1] = x[:, ::2]
    columns[2] = x[:, 1::2]
    return columns.reshape(-1, 2)


def _conv(columns: Array, weight: Array, bias: Array) -> Array:
    """ReLU of a convolution, from its columns [inputs, frames]: [outputs, frames]."""
    x: Array = weight @ columns
    x += bias
    return np.maximum(x, 0, out=x)


def _sigmoid(x: Array) -> Array:
    # By tanh: exp would overflow on loud input.
    result: Array = 0.5 * np.tanh(0.5 * x) + 0.5
    return result
