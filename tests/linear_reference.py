"""Products with weights as models store them, in float64 NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from voxfast.models.values import BITS, GROUP_SIZES
from voxfast.ops import linear

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
# Half a unit in the last place of what is stored.
ROUNDING = {mx.float32: 2**-24, mx.float16: 2**-11, mx.bfloat16: 2**-8}
# Of the sum of |x| |w|: what accumulating in float32 adds.
ACCUMULATION = 1e-6
# Of the largest |x| of a group times the sum of its |w|: packed weights multiply
# activations that are rounded to 16 bits with one scale for each group.
FIXED_POINT = 2**-15 * 1.01


@dataclass(frozen=True)
class Weights:
    """A matrix [N, K] in some format, what to give to ``linear``, and its exact values."""

    arrays: tuple[mx.array, ...]  # w, or w, scales, biases
    options: dict[str, int]  # group_size and bits, if packed
    values: np.ndarray  # float64

    @property
    def group_size(self) -> int:
        return self.options.get("group_size", 0)


def to_numpy(x: mx.array) -> np.ndarray:
    """Any float array as float64."""
    return np.array(x.astype(mx.float32)).astype(np.float64)


def normal(rng: np.random.Generator, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    """Normal numbers, rounded to the dtype."""
    return mx.array(rng.standard_normal(shape).astype(np.float32)).astype(dtype)


def float_weights(rng: np.random.Generator, n: int, k: int, dtype: mx.Dtype) -> Weights:
    w = normal(rng, (n, k), dtype)
    return Weights((w,), {}, to_numpy(w))


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [N, K] as uint32 [N, K * bits / 32]: one string of bits, the lowest first."""
    n, k = codes.shape
    string = (codes[:, :, None] >> np.arange(bits) & 1).reshape(n, k * bits)
    return np.packbits(string.astype(np.uint8), axis=1, bitorder="little").view(np.uint32)


def packed_weights(
    rng: np.random.Generator, n: int, k: int, bits: int, group_size: int, dtype: mx.Dtype
) -> Weights:
    """All codes occur; scales have both signs and many sizes."""
    codes = rng.integers(0, 2**bits, (n, k))
    shape = (n, k // group_size)
    scales = mx.array((rng.standard_normal(shape) / 2**bits).astype(np.float32)).astype(dtype)
    biases = normal(rng, shape, dtype)
    wide = [np.repeat(to_numpy(x), group_size, axis=1) for x in (scales, biases)]
    return Weights(
        (mx.array(pack(codes, bits)), scales, biases),
        {"group_size": group_size, "bits": bits},
        codes * wide[0] + wide[1],
    )


def check(found: mx.array, x: mx.array, w: Weights, bias: mx.array | None = None) -> None:
    """Compares with float64, within the rounding of the result and what is summed up."""
    x64 = to_numpy(x)
    reference = x64 @ w.values.T
    slack = ACCUMULATION * (np.abs(x64) @ np.abs(w.values.T))
    if w.group_size:
        groups = (*x64.shape[:-1], -1, w.group_size)
        largest = np.abs(x64).reshape(groups).max(axis=-1)
        weights = np.abs(w.values).reshape(len(w.values), -1, w.group_size)
        # A code is rounded on its own before the bias is added: twice the range at most.
        spread = weights.sum(axis=-1)
        slack = slack + (FIXED_POINT + ACCUMULATION) * (largest @ spread.T)
        codes = np.abs(to_numpy(w.arrays[2])) * w.group_size
        slack = slack + ACCUMULATION * (largest @ codes.T)
    if bias is not None:
        reference = reference + to_numpy(bias)
        slack = slack + ACCUMULATION * np.abs(reference)
    assert found.shape == reference.shape
    values = to_numpy(found)
    deviation = np.abs(values - reference)
    allowed = ROUNDING[found.dtype] * np.abs(reference) * 1.01 + slack
    assert (deviation <= allowed).all(), float((deviation / allowed).max())


def formats(rng: np.random.Generator, n: int, k: int) -> list[Weights]:
    """Every format that fits K."""
    found = [float_weights(rng, n, k, dtype) for dtype in DTYPES]
    for i, (bits, group_size) in enumerate((b, g) for b in BITS for g in GROUP_SIZES):
        if k % group_size == 0:
            found.append(packed_weights(rng, n, k, bits, group_size, DTYPES[i % 3]))
    return found


def sweep() -> None:
    """A quick check of all kernels; run in processes with other settings."""
    rng = np.random.default_rng(7)
    for n, k in ((1, 128), (7, 2304), (29, 67), (300, 384)):
        for i, w in enumerate(formats(rng, n, k)):
            for m in (1, 4, 13, 31):
                x = normal(rng, (m, k), DTYPES[i % 3])
                y = linear(x, *w.arrays, **w.options, out_dtype=mx.float32)
                check(y, x, w)
                alone = linear(x[m - 1 :], *w.arrays, **w.options, out_dtype=mx.float32)
                assert mx.array_equal(y[m - 1 :], alone)
