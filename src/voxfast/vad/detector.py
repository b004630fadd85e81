"""Silero's voice activity detector for 16 kHz (MIT), as one native function.

A frame of 512 samples, 32 ms, goes through a short-time Fourier transform, four convolutions and
an LSTM: 700 000 multiplications, some 10 µs with AVX-512. Each frame is computed alone, so that
the probabilities are the same bits for any split of the samples. ``tests/vad_reference.py`` has
the same in NumPy.
"""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxfast.audio import SAMPLE_RATE, check_samples

if TYPE_CHECKING:
    from voxfast._ext import VoiceNetwork

__all__ = ["FRAME_LENGTH", "FRAME_SECONDS", "VoiceDetector"]

FRAME_LENGTH = 512
FRAME_SECONDS = FRAME_LENGTH / SAMPLE_RATE
CONTEXT = 64  # samples before a frame that are looked at again
HIDDEN = 128

Array = npt.NDArray[np.float32]

# Frames that the convolutions get: 4, 4, 2 and 1. Of two frames, the first output sees no third
# one before; of a single one, neither neighbour. What only ever meets the zeros beyond the ends is
# left out.
TAPS = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))


def load_layers() -> tuple[list[tuple[Array, Array]], Array, float]:
    """The weights that voxfast ships: ``silero_16k.npz`` of ``tools/silero_vad.py``.

    Returns:
        weight [outputs, inputs] and bias [outputs] of each convolution and of the LSTM's gates;
        then the output's weight [HIDDEN] and bias. The inputs of a convolution are those of the
        oldest of its frames first. The gates are input, forget, output and the cell's, of the
        input and the hidden state together.
    """
    source = resources.files(__package__) / "silero_16k.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        layers = []
        for number, taps in enumerate(TAPS):
            weight = arrays[f"conv{number}.weight"][:, :, taps]  # [out, in, 3] as in PyTorch
            rows = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
            layers.append((rows, arrays[f"conv{number}.bias"]))
        gates = np.concatenate((arrays["lstm.weight_ih"], arrays["lstm.weight_hh"]), axis=1)
        bias = arrays["lstm.bias_ih"] + arrays["lstm.bias_hh"]
        output, output_bias = arrays["output.weight"].ravel(), float(arrays["output.bias"][0])
    entry, forget, cell, out = np.split(np.arange(4 * HIDDEN), 4)  # PyTorch's order
    order = np.concatenate((entry, forget, out, cell))
    layers.append((gates[order], bias[order]))
    return layers, output, output_bias


@cache
def _network() -> "VoiceNetwork":
    from voxfast._native import _ext  # not before it is used: it loads MLX

    return _ext.VoiceNetwork.make(*load_layers())


class VoiceDetector:
    """The probability that someone speaks, every 32 ms of a stream.

    Parity: for any split of the samples, the concatenated results of ``step`` are the same bits.
    """

    def __init__(self) -> None:
        self._network = _network()
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
        probabilities = np.empty(count, np.float32)
        looked_at = audio[: CONTEXT + count * FRAME_LENGTH]
        self._network.run(looked_at, self._hidden, self._cell, probabilities)
        self._tail = audio[count * FRAME_LENGTH :].copy()
        return probabilities

    def finish(self) -> Array:
        """Probabilities of what is left, with zeros behind it: [1], or [0] if nothing is."""
        left = len(self._tail) - CONTEXT
        return self.step(np.zeros(FRAME_LENGTH - left if left else 0, np.float32))
