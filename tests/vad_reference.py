"""The voice detector in NumPy, in float64, from the same weights."""

import numpy as np
from numpy.typing import NDArray

from voxfast.vad import VoiceDetector
from voxfast.vad.detector import CONTEXT, FRAME_LENGTH, HIDDEN, load_layers

N_FFT, HOP_LENGTH = 256, 128
Array = NDArray[np.float64]


def reference(audio: NDArray[np.float32]) -> Array:
    """Probabilities [N // 512] of a stream."""
    padded = np.concatenate((np.zeros(CONTEXT), audio))
    hidden, cell, found = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    (*convs, (gates, gates_bias)), output, output_bias = load_layers()
    first, second, third, fourth = convs
    for start in range(0, len(audio) // FRAME_LENGTH * FRAME_LENGTH, FRAME_LENGTH):
        x = magnitudes(padded[start : start + CONTEXT + FRAME_LENGTH])
        x = conv(windows(x, 3, 1), *first)
        x = conv(windows(x, 3, 2), *second)
        x = conv(x.reshape(1, -1), *third)
        x = conv(x, *fourth)[0]
        entry, forget, out, new = np.split(gates @ np.concatenate((x, hidden)) + gates_bias, 4)
        cell = sigmoid(forget) * cell + sigmoid(entry) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
        found.append(sigmoid(output @ np.maximum(hidden, 0) + output_bias))
    return np.array(found)


def magnitudes(samples: Array) -> Array:
    """[4, 129] of the spectra of a frame and its context."""
    padded = np.concatenate((samples, samples[-2 : -CONTEXT - 2 : -1]))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = [padded[at : at + N_FFT] * window for at in range(0, 4 * HOP_LENGTH, HOP_LENGTH)]
    return np.abs(np.fft.rfft(frames))


def windows(x: Array, length: int, stride: int) -> Array:
    """Rows of ``length`` neighbouring frames, with zeros at the ends."""
    padded = np.concatenate((np.zeros((1, x.shape[1])), x, np.zeros((1, x.shape[1]))))
    starts = range(0, len(x), stride)
    return np.stack([padded[start : start + length].ravel() for start in starts])


def conv(x: Array, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Array:
    return np.maximum(x @ weight.T.astype(np.float64) + bias, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def sweep() -> None:
    """Compare the native detector with this one on noise, a tone and silence."""
    rng = np.random.default_rng(7)
    time = np.arange(30 * FRAME_LENGTH) / 16_000
    for audio in (
        0.3 * rng.standard_normal(len(time)).clip(-3, 3),
        0.5 * np.sin(2 * np.pi * 180 * time) * (1 + np.sin(2 * np.pi * 5 * time)),
        np.zeros(len(time)),
    ):
        samples = audio.astype(np.float32)
        found = VoiceDetector().step(samples)
        np.testing.assert_allclose(found, reference(samples), rtol=0, atol=2e-5)
