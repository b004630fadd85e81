"""Sliding-window attention in float64 NumPy, with explicit masks over the whole sequence."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from voxfast.ops import SCALE_BYTES, rotary_tables, sliding_attention

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
# Relative to max(1, |reference|): half a unit in the last place of what is stored, and
# what float32 accumulation adds.
TOLERANCE = {mx.float32: 6e-6, mx.float16: 2**-11 + 1e-5, mx.bfloat16: 2**-8 + 1e-5}

# What streams may be like, but for the sizes of heads and chunks.
ANY_STREAM = {
    "heads": st.sampled_from([(1, 1), (2, 2), (4, 2), (8, 2), (6, 2), (5, 1), (9, 1), (20, 1)]),
    "window": st.sampled_from([1, 2, 3, 7, 64, 750]),
    "slack": st.sampled_from([0, 0, 1, 50]),
    "batch": st.sampled_from([1, 1, 2]),
    "length": st.integers(1, 150),
    "dtype": st.sampled_from(DTYPES),
    "native": st.booleans(),
}


def to_numpy(x: mx.array) -> np.ndarray:
    """Any float array as float64."""
    return np.array(x.astype(mx.float32)).astype(np.float64)


def normal(rng: np.random.Generator, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    """Normal numbers, rounded to the dtype."""
    return mx.array(rng.standard_normal(shape).astype(np.float32)).astype(dtype)


def quantized(x: mx.array) -> mx.array:
    """Rows [..., D] of any float dtype as those of a ring in 8 bits, [..., D + 4]."""
    rows = np.array(x.astype(mx.float32))
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        per_step = np.float32(127) / largest
        has_codes = (largest >= np.float32(1e-30)) & np.isfinite(largest)
        codes = np.where(has_codes, np.rint(rows * per_step), 0).astype(np.int8)
    scales = np.where(largest < np.float32(1e-30), 0, largest / np.float32(127))
    scale_bytes = np.ascontiguousarray(scales.astype(np.float32)).view(np.int8)
    return mx.array(np.concatenate([codes, scale_bytes], axis=-1))


def numbers(rows: mx.array) -> np.ndarray:
    """What rows of a ring in 8 bits stand for, in float64; NaN if the scale is not finite."""
    stored = np.array(rows)
    scales = np.ascontiguousarray(stored[..., -SCALE_BYTES:]).view(np.float32)
    with np.errstate(invalid="ignore"):
        return stored[..., :-SCALE_BYTES].astype(np.float64) * scales


def inputs(
    heads: int = 4,
    kv_heads: int = 2,
    size: int = 16,
    length: int = 1,
    capacity: int = 8,
    batch: int = 1,
    dtype: mx.Dtype = mx.float32,
    seed: int = 0,
) -> dict[str, mx.array]:
    """Arrays for one call, by the names of sliding_attention's parameters."""
    rng = np.random.default_rng(seed)
    return {
        "q": normal(rng, (batch, length, heads, size), dtype),
        "k": normal(rng, (batch, length, kv_heads, size), dtype),
        "v": normal(rng, (batch, length, kv_heads, size), dtype),
        "keys": normal(rng, (batch, kv_heads, capacity, size), dtype),
        "values": normal(rng, (batch, kv_heads, capacity, size), dtype),
    }


def rotate(x: np.ndarray, offset: int, theta: float, traditional: bool) -> np.ndarray:
    """x [B, N, H, D] of positions from ``offset`` on, rotated by float64 angles."""
    size = x.shape[-1]
    angles = np.array(
        [
            [(offset + n) * theta ** (-i / size) for i in range(0, size, 2)]
            for n in range(x.shape[1])
        ]
    )
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = np.empty_like(x)
    if traditional:
        first, second = x[..., 0::2], x[..., 1::2]
        out[..., 0::2] = first * cos - second * sin
        out[..., 1::2] = first * sin + second * cos
    else:
        first, second = x[..., : size // 2], x[..., size // 2 :]
        out[..., : size // 2] = first * cos - second * sin
        out[..., size // 2 :] = first * sin + second * cos
    return out


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int, scale: float, *, causal: bool = True
) -> np.ndarray:
    """k, v [B, N, H_kv, D] of one sequence from its first position on, q [B, L, H, D] of its end.

    Not causal, every query sees what the last one sees.
    """
    group = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)
    scores = np.einsum("bihd,bjhd->bhij", q, k) * scale
    j = np.arange(k.shape[1])
    i = j[-q.shape[1] :, None] if causal else j[-1]
    scores = np.where((j <= i) & (j > i - window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", weights, v)


def error(out: mx.array, reference: np.ndarray) -> float:
    """The greatest deviation relative to max(1, |reference|)."""
    return float(np.max(np.abs(to_numpy(out) - reference) / np.maximum(1, np.abs(reference))))


def stream(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    chunks: Sequence[int],
    window: int,
    *,
    capacity: int | None = None,
    offset: int = 0,
    theta: float | None = None,
    traditional: bool = True,
    kv_bits: int | None = None,
) -> mx.array:
    """Runs [B, N, ...] through rings in chunks, repeated as long as rows are left.

    With an offset, position ``offset`` is the first row of the arrays and the ring holds
    zeros before it, so only rows from ``window - 1`` on are those of the reference.
    """
    batch, length, heads, size = k.shape
    keys = mx.zeros((batch, heads, capacity or window + max(chunks) - 1, size), k.dtype)
    keys = keys if kv_bits is None else quantized(keys)
    values, outs, first, turn = keys + 0, [], 0, 0
    while first < length:
        last = min(first + chunks[turn % len(chunks)], length)
        rotary = None
        if theta is not None:
            rotary = rotary_tables(offset + first, last - first, size, theta)
        out, keys, values = sliding_attention(
            q[:, first:last],
            k[:, first:last],
            v[:, first:last],
            keys,
            values,
            offset + first,
            window=window,
            scale=size**-0.5,
            rotary=rotary,
            traditional=traditional,
            stream=mx.cpu,
        )
        outs.append(out)
        first, turn = last, turn + 1
    return mx.concatenate(outs, axis=1)


def sweep() -> None:
    """A quick check of all kernels; run in processes with other settings."""
    rng = np.random.default_rng(7)
    for heads, kv_heads, size in ((4, 4, 64), (8, 2, 128), (6, 6, 31), (12, 1, 80), (2, 1, 256)):
        for dtype in DTYPES:
            q = normal(rng, (1, 90, heads, size), dtype)
            k, v = (normal(rng, (1, 90, kv_heads, size), dtype) for _ in range(2))
            for window in (3, 50):
                reference = attention(*(to_numpy(x) for x in (q, k, v)), window, size**-0.5)
                for chunks in ((1,), (4,), (37,), (90,)):
                    deviation = error(stream(q, k, v, chunks, window), reference)
                    assert deviation < TOLERANCE[dtype], (heads, kv_heads, size, dtype, chunks)
            reference = attention(
                to_numpy(q), *(numbers(quantized(x)) for x in (k, v)), 50, size**-0.5
            )
            deviation = error(stream(q, k, v, (37, 1), 50, kv_bits=8), reference)
            assert deviation < TOLERANCE[dtype], (heads, kv_heads, size, dtype, "8 bits")
    # One KV head and many keys: they are split between threads.
    q = normal(rng, (1, 3000, 4, 64), mx.float32)
    k, v = (normal(rng, (1, 3000, 1, 64), mx.float32) for _ in range(2))
    whole = stream(q, k, v, (3000,), 2500)
    steps = stream(q, k, v, (2990, 1), 2500)
    assert error(steps[:, 2980:], to_numpy(whole[:, 2980:])) < TOLERANCE[mx.float32]
