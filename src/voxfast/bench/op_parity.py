"""Every op against float64 NumPy, on any device: does this machine compute what it should?"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast import ops

__all__ = ["op_errors"]

Array = NDArray[Any]
Pair = tuple[mx.array, Array]  # what was computed, and what should have been


def op_errors(dtype: mx.Dtype = mx.float32) -> dict[str, float]:
    """The largest error of each op on the default device, relative to max(1, |truth|).

    Args:
        dtype: of the inputs. The truth is computed in float64 from the same, rounded inputs.

    Returns:
        By name of the op; NaN if a result is not finite.
    """
    errors = {}
    for name, case in _CASES.items():
        worst = 0.0
        for found, truth in case(np.random.default_rng(0), dtype):
            off = np.abs(np.array(found.astype(mx.float32), np.float64) - truth)
            # np.maximum keeps a NaN, max() drops it.
            worst = float(np.maximum(worst, (off / np.maximum(1.0, np.abs(truth))).max()))
        errors[name] = worst
    return errors


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: mx.Dtype) -> tuple[Any, Array]:
    """Random numbers as the device and as NumPy have them."""
    x = mx.array(rng.standard_normal(shape).astype(np.float32)).astype(dtype)
    return x, np.array(x.astype(mx.float32), np.float64)


def _gelu(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    from math import erf

    x, y = _draw(rng, (3, 1001), dtype)
    return [(ops.gelu(x), y * (1 + np.vectorize(erf)(y / np.sqrt(2))) / 2)]


def _swiglu(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    (gate, g), (up, u) = (_draw(rng, (3, 1001), dtype) for _ in range(2))
    return [(ops.swiglu(gate, up), g / (1 + np.exp(-g)) * u)]


def _rms_norm(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    (x, y), (weight, w) = _draw(rng, (3, 1024), dtype), _draw(rng, (1024,), dtype)
    truth = y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + 1e-5) * w
    return [(ops.rms_norm(x, weight, 1e-5), truth)]


def _greedy(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    x, y = _draw(rng, (3, 5003), dtype)
    token, probability = ops.greedy(x)
    softmax = np.exp(y - y.max(axis=-1, keepdims=True))
    softmax /= softmax.sum(axis=-1, keepdims=True)
    return [(token, y.argmax(axis=-1)), (probability, softmax.max(axis=-1))]


def _log_mel(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    """Against the window and the transform in float64; the filterbank is found from the op."""
    samples, x = _draw(rng, (4000,), dtype)
    frames = np.lib.stride_tricks.sliding_window_view(x, 400)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(401)[:400])) ** 2
    found = ops.log_mel(samples)
    return [(found, np.log10(np.maximum(power @ _filterbank().T, 1e-10)))]


def _filterbank() -> Array:
    """Slaney's mel filters, [128, 201]."""
    linear, step = 1000.0, np.log(6.4) / 27
    mels = np.linspace(0.0, 15.0 + np.log(8000.0 / linear) / step, 130)
    hertz = np.where(mels < 15, mels * 200 / 3, linear * np.exp(step * (mels - 15)))
    bins = np.arange(201) * 40.0
    left, centre, right = (hertz[i : i + 128, None] for i in range(3))
    slopes = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.asarray(np.maximum(slopes, 0.0) * 2.0 / (right - left))


def _linear(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    (x, y), (drawn, _) = _draw(rng, (5, 512), dtype), _draw(rng, (300, 512), dtype)
    weight = (drawn * 512**-0.5).astype(dtype)
    w = np.array(weight.astype(mx.float32), np.float64)
    packed, scales, biases = mx.quantize(weight, 64, 4)
    unpacked = mx.dequantize(packed, scales, biases, 64, 4).astype(mx.float32)
    return [
        (ops.linear(x, weight), y @ w.T),
        (ops.linear(x, packed, scales, biases), y @ np.array(unpacked, np.float64).T),
    ]


def _sliding_attention(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    """A stream through a small ring, in steps of several rows and of one, after a month."""
    window, start, sizes, pairs = 24, 130_000_001, [1, 7, 3] * 8, []
    (q, q64), (k, k64), (v, v64) = (
        _draw(rng, (1, sum(sizes), heads, 64), dtype) for heads in (4, 2, 2)
    )
    keys, values = (mx.zeros((1, 2, window + 6, 64), dtype) for _ in range(2))
    q64, k64 = (_rotate(x, start) for x in (q64, k64))
    at = 0
    for size in sizes:
        rows = slice(at, at + size)
        rotary = ops.rotary_tables(start + at, size, 64, 1e6)
        out, keys, values = ops.sliding_attention(
            q[:, rows], k[:, rows], v[:, rows], keys, values, at,
            window=window, scale=0.125, rotary=rotary,
        )  # fmt: skip
        mx.eval(out, keys, values)
        pairs.append((out, _attend(q64, k64, v64, rows, window)))
        at += size
    return pairs


def _rotate(x: Array, start: int) -> Array:
    """Interleaved pairs [1, N, H, 64], from position ``start`` on."""
    angles = np.arange(start, start + x.shape[1])[:, None] * 1e6 ** (-np.arange(0, 64, 2) / 64)
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def _attend(q: Array, k: Array, v: Array, rows: slice, window: int) -> Array:
    k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = np.einsum("bihd,bjhd->bhij", q[:, rows], k) * 0.125
    i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(k.shape[1])
    scores = np.where((j <= i) & (j > i - window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.einsum("bhij,bjhd->bihd", weights, v))


def _alignment_frame(rng: np.random.Generator, dtype: mx.Dtype) -> list[Pair]:
    heads, layers = [3, 6, 7], range(3)
    queries = [_draw(rng, (1, 8, 1, 64), dtype) for _ in layers]
    keys = [_draw(rng, (1, 2, 200, 64), dtype) for _ in layers]
    frames = [
        int(np.argmax(k[0, head // 4, 20:180] @ q[0, head, 0]))
        for (_, q), (_, k) in zip(queries, keys, strict=True)
        for head in heads
    ]
    found = ops.alignment_frame(
        [q for q, _ in queries], [k for k, _ in keys], [heads] * len(layers), 20, 160
    )
    return [(found, np.array([[sorted(frames)[len(frames) // 2]]]))]


_CASES: dict[str, Callable[[np.random.Generator, mx.Dtype], list[Pair]]] = {
    "alignment_frame": _alignment_frame,
    "gelu": _gelu,
    "greedy": _greedy,
    "linear": _linear,
    "log_mel": _log_mel,
    "rms_norm": _rms_norm,
    "sliding_attention": _sliding_attention,
    "swiglu": _swiglu,
}
