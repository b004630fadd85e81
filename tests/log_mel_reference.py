"""Log-mel in float64 NumPy, written from the definition, for the tests to compare with."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

SPEECH = sorted((Path(__file__).parent / "data" / "real").glob("*.[wf]*"))

# Voxtral's normalisation: max(x, 1.5 - 8), then (x + 4) / 4.
NORMALISED = {"log_floor": -6.5, "shift": 4.0, "scale": 0.25}
COMPOSED_ATOL = 5e-5  # a float32 FFT; in normalised units


def filterbank(n_mels: int) -> npt.NDArray[np.float64]:
    """Slaney's triangular filters of unit area, [n_mels, 201]."""
    # The mel scale as a table of (Hz, mel): 15 mel up to 1000 Hz, then 27 per factor 6.4.
    top = 15 + 27 * np.log(8.0) / np.log(6.4)
    mel = np.linspace(0, top, n_mels + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hz = np.linspace(0, 8000, 201)
    triangles = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre))
    return np.maximum(triangles, 0) * 2 / (right - left)


def log_mel_float64(
    samples: npt.NDArray[np.floating],
    n_mels: int = 128,
    log_floor: float = -np.inf,
    shift: float = 0.0,
    scale: float = 1.0,
) -> npt.NDArray[np.float64]:
    """[..., N] to [..., T, n_mels]."""
    x = np.asarray(samples, dtype=np.float64)
    starts = np.arange(0, x.shape[-1] - 399, 160)
    frames = x[..., starts[:, None] + np.arange(400)]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = np.log10(np.maximum(power @ filterbank(n_mels).T, 1e-10))
    return (np.maximum(mel, log_floor) + shift) * scale


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """White noise with a loud tone, whose level changes along the last axis."""
    rng = np.random.default_rng(seed)
    n = np.arange(shape[-1])
    x = rng.standard_normal(shape) * 0.01 + 0.5 * np.sin(0.3 * n)
    return (x * np.exp(-3 * np.sin(n / 4000) ** 2)).astype(np.float32)
