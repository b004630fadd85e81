"""log_mel: the kernel against its composition, the peers' code, and NumPy.

    OPENBLAS_NUM_THREADS=1 pytest benches/bench_log_mel.py --benchmark-enable

Everything but the samples is made beforehand; what is timed includes MLX's dispatch and the
wait for the result. The roofline is the arithmetic of a real FFT, 2.5 N log2 N operations per
frame, at the rate of a float64 matrix product in one thread.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from roofline import product_rate

from voxfast.features import HOP_LENGTH, N_FFT
from voxfast.ops import log_mel, use_native

N_MELS = 128
FRAMES = {"80 ms": 8, "1 s": 100, "30 s": 3000}

N = np.arange(N_FFT)
WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * N / N_FFT)).astype(np.float32)


def filterbank() -> np.ndarray:
    """Slaney's filters, [201, 128]."""
    mel = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), N_MELS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hz = np.linspace(0, 8000, N_FFT // 2 + 1)[:, None]
    rows = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre))
    return (np.maximum(rows, 0) * 2 / (right - left)).astype(np.float32)


def native(samples: np.ndarray) -> Callable[[], object]:
    x = mx.array(samples)
    return lambda: mx.eval(log_mel(x, stream=mx.cpu))


def composed(samples: np.ndarray) -> Callable[[], object]:
    x = mx.array(samples)

    def run() -> None:
        with use_native(False):
            out = log_mel(x, stream=mx.cpu)
        mx.eval(out)

    return run


def peers(samples: np.ndarray) -> Callable[[], object]:
    """Frames by an index array, the DFT as two float32 matrices."""
    x, window, filters = mx.array(samples), mx.array(WINDOW), mx.array(filterbank())
    angles = 2 * np.pi * np.outer(N, np.arange(N_FFT // 2 + 1)) / N_FFT
    cosines, sines = (
        mx.array(np.cos(angles).astype(np.float32)),
        mx.array(np.sin(angles).astype(np.float32)),
    )

    def run() -> None:
        n_frames = (x.size - N_FFT) // HOP_LENGTH + 1
        index = mx.arange(n_frames)[:, None] * HOP_LENGTH + mx.arange(N_FFT)
        frames = x[index] * window
        power = (frames @ cosines) ** 2 + (frames @ sines) ** 2
        mx.eval(mx.log10(mx.maximum(power @ filters, 1e-10)))

    return run


def numpy(samples: np.ndarray) -> Callable[[], object]:
    filters = filterbank()

    def run() -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH]
        spectrum = np.fft.rfft(frames * WINDOW)
        power = spectrum.real**2 + spectrum.imag**2
        return np.log10(np.maximum(power @ filters, 1e-10))

    return run


BACKENDS = {"native": native, "composed": composed, "peers": peers, "numpy": numpy}


@pytest.fixture(scope="session")
def operations_per_second() -> float:
    """Of a float64 matrix product."""
    return 2 * product_rate(np.float64, 512)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk", FRAMES)
def test_log_mel(benchmark, chunk, backend, operations_per_second):
    n_frames = FRAMES[chunk]
    length = (n_frames - 1) * HOP_LENGTH + N_FFT
    samples = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    benchmark.group = f"log_mel, {chunk}, float32"
    benchmark.extra_info["backend"] = backend
    operations = 2.5 * N_FFT * np.log2(N_FFT) * n_frames
    benchmark.extra_info["roofline"] = operations / operations_per_second
    benchmark(BACKENDS[backend](samples))
