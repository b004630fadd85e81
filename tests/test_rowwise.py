"""rms_norm, swiglu, gelu and greedy against float64, on every kind of row."""

import math
import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from voxfast._native import _ext
from voxfast.ops import gelu, greedy, rms_norm, swiglu, use_native

DTYPES = {mx.float32: 2e-6, mx.float16: 6e-4, mx.bfloat16: 5e-3}  # of half a last place
COLUMNS = [1, 3, 8, 15, 16, 17, 31, 64, 192, 257, 3072]


def make(shape: tuple[int, ...], dtype: mx.Dtype, seed: int) -> tuple[mx.array, np.ndarray]:
    x = mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)
    return x, np.array(x.astype(mx.float32), np.float64)


def check(found: mx.array, truth: np.ndarray, dtype: mx.Dtype) -> None:
    assert found.dtype == dtype
    values = np.array(found.astype(mx.float32), np.float64)
    np.testing.assert_allclose(values, truth, rtol=DTYPES[dtype], atol=DTYPES[dtype] / 10)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_against_float64(columns: int, dtype: mx.Dtype, native: bool) -> None:
    x, x64 = make((2, 5, columns), dtype, 0)
    y, y64 = make((2, 5, columns), dtype, 1)
    weight, weight64 = make((columns,), dtype, 2)
    with use_native(native):
        normed, gated = rms_norm(x, weight, 1e-5), swiglu(x, y)
    truth = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-5) * weight64
    slack = 1.0 if native else 3.0  # MLX rounds more than once
    np.testing.assert_allclose(
        np.array(normed.astype(mx.float32)), truth, rtol=slack * DTYPES[dtype], atol=1e-6
    )
    truth = x64 / (1 + np.exp(-x64)) * y64
    np.testing.assert_allclose(
        np.array(gated.astype(mx.float32)), truth, rtol=3 * slack * DTYPES[dtype], atol=1e-5
    )
    assert normed.dtype == gated.dtype == dtype


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [*COLUMNS, 151_936])
def test_greedy_against_float64(columns: int, dtype: mx.Dtype, native: bool) -> None:
    logits, logits64 = make((2, 3, columns), dtype, 3)
    logits, logits64 = logits * 4, logits64 * 4
    with use_native(native):
        tokens, probabilities = greedy(logits)
    assert tokens.dtype == mx.uint32
    assert probabilities.dtype == mx.float32
    np.testing.assert_array_equal(np.array(tokens), logits64.argmax(-1))
    weights = np.exp(logits64 - logits64.max(-1, keepdims=True))
    # MLX adds up in the order of the numbers, which loses much of long rows.
    rtol = 3e-6 if native else 1e-3
    np.testing.assert_allclose(np.array(probabilities), 1 / weights.sum(-1), rtol=rtol)


@pytest.mark.parametrize("native", [True, False])
def test_greedy_on_equal_and_bad_logits(native: bool) -> None:
    inf, nan = float("inf"), float("nan")
    rows = [
        ([1.0, 5.0, 5.0, 5.0], 1, 1 / (3 + math.exp(-4))),
        ([nan, 2.0, nan, 7.0], 3, nan),
        ([-inf, -inf, 3.0, -inf], 2, 1.0),
        ([nan, nan, nan, nan], 0, nan),
        ([-inf, -inf, -inf, -inf], 0, nan),
        ([1.0, inf, 2.0, 3.0], 1, nan),
    ]
    for width in (4, 37):  # the rest of the row is too small to count
        logits = np.full((len(rows), width), -200.0, np.float32)
        for row, (some, _, _) in zip(logits, rows, strict=True):
            row[-4:] = some
            row[:-4] = min(-200.0, *some) if not np.isnan(some).any() else nan
        with use_native(native):
            tokens, probabilities = greedy(mx.array(logits))
        expected = [0 if i in (3, 4) else width - 4 + token for i, (_, token, _) in enumerate(rows)]
        assert tokens.tolist() == expected
        np.testing.assert_allclose(np.array(probabilities), [p for *_, p in rows], rtol=1e-6)


def normal_below(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_gelu_against_float64(columns: int, dtype: mx.Dtype, native: bool) -> None:
    x = mx.array(np.linspace(-6, 6, 3 * columns, dtype=np.float32).reshape(3, columns))
    x = x.astype(dtype)
    x64 = np.array(x.astype(mx.float32), np.float64)
    with use_native(native):
        found = gelu(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.array(found.astype(mx.float32)), x64 * normal_below(x64), rtol=DTYPES[dtype], atol=4e-7
    )


def test_gelu_of_many_rows_and_of_views() -> None:
    x, x64 = make((257, 640), mx.float32, 0)
    truth = x64 * normal_below(x64)
    for found, expected in ((gelu(x), truth), (gelu(x[::-3]), truth[::-3]), (gelu(x.T), truth.T)):
        np.testing.assert_allclose(np.array(found), expected, rtol=2e-6, atol=4e-7)
    ends = np.array(gelu(mx.array([-1e30, -40.0, 0.0, 40.0, 1e30, float("inf"), float("nan")])))
    np.testing.assert_array_equal(ends, np.float32([0, 0, 0, 40, 1e30, np.inf, np.nan]))
    assert gelu(mx.zeros((0, 4))).shape == (0, 4)
    assert gelu(mx.array(1.0)).shape == ()


def test_many_rows_and_views() -> None:
    x, x64 = make((257, 640), mx.float32, 0)
    weight, weight64 = make((640,), mx.float32, 1)
    truth = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-5) * weight64
    check(rms_norm(x, weight, 1e-5), truth, mx.float32)
    check(rms_norm(x[::-3], weight, 1e-5), truth[::-3], mx.float32)
    turned = x.T
    check(swiglu(turned, turned), x64.T**2 / (1 + np.exp(-x64.T)), mx.float32)


def views(x: mx.array) -> list[mx.array]:
    """Numbers of [6, 10, 12] that do not lie in a row, as [..., 12]."""
    return [
        x[::-2],
        x[:, ::3],
        mx.concatenate([x, x], axis=-1)[..., ::2],
        x.transpose(1, 0, 2),
        mx.broadcast_to(x[:, :1], (6, 4, 12)),
        x.swapaxes(0, 2).swapaxes(0, 2)[1:, 3:7],
        mx.concatenate([x, x], axis=1).swapaxes(1, 2)[..., 4:16],
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_are_as_copies(dtype: mx.Dtype) -> None:
    x, _ = make((6, 10, 12), dtype, 0)
    other, _ = make((6, 10, 12), dtype, 1)
    weight = make((24,), dtype, 2)[0][::2]
    for a, b in zip(views(x), views(other), strict=True):
        copy, copy_b, copy_weight = (
            mx.array(np.array(y.astype(mx.float32))).astype(dtype) for y in (a, b, weight)
        )
        pairs = [
            (rms_norm(a, weight, 1e-5), rms_norm(copy, copy_weight, 1e-5)),
            (swiglu(a, b), swiglu(copy, copy_b)),
            (swiglu(copy, b), swiglu(copy, copy_b)),
            (gelu(a), gelu(copy)),
            *zip(greedy(a), greedy(copy), strict=True),
        ]
        for found, expected in pairs:
            assert mx.array_equal(found, expected)


def test_extremes() -> None:
    x = mx.array([-1e4, -100.0, -88.5, 0.0, 88.5, 1e4, float("inf")])
    found = np.array(swiglu(x, mx.ones(7)))
    np.testing.assert_allclose(found, [0, 0, 0, 0, 88.5, 1e4, np.inf], atol=1e-6)
    assert np.isnan(np.array(swiglu(mx.array([float("nan")]), mx.ones(1))))[0]
    assert np.array(rms_norm(mx.zeros((2, 8)), mx.ones(8), 1e-5)).any() == np.False_
    assert swiglu(mx.zeros((0, 4)), mx.zeros((0, 4))).shape == (0, 4)


def test_types_are_promoted() -> None:
    found = rms_norm(mx.ones((2, 20), dtype=mx.bfloat16), mx.ones(20), 0.0)
    assert found.dtype == mx.float32
    np.testing.assert_array_equal(np.array(found), 1.0)


def test_compiled() -> None:
    x, weight = mx.random.normal((3, 64)), mx.random.normal((64,))
    step = mx.compile(lambda x: swiglu(rms_norm(x, weight, 1e-5), x))
    np.testing.assert_array_equal(np.array(step(x)), np.array(swiglu(rms_norm(x, weight, 1e-5), x)))


def test_rejections() -> None:
    with pytest.raises(ValueError, match=r"^\[rms_norm\] x and weight must be float.*int32"):
        rms_norm(mx.zeros((2, 4), dtype=mx.int32), mx.zeros(4), 1e-5)
    with pytest.raises(ValueError, match=r"^\[rms_norm\] x must be \[..., D\].*\(5\)"):
        rms_norm(mx.zeros((2, 4)), mx.zeros(5), 1e-5)
    with pytest.raises(ValueError, match="eps"):
        rms_norm(mx.zeros((2, 4)), mx.zeros(4), float("nan"))
    with pytest.raises(ValueError, match=r"^\[swiglu\].*\(2,4\).*\(2,5\)"):
        swiglu(mx.zeros((2, 4)), mx.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"^\[gelu\] x must be float.*int32"):
        gelu(mx.zeros((2, 4), dtype=mx.int32))


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_every_instruction_set(isa: str) -> None:
    code = (
        "import mlx.core as mx, numpy as np; from voxfast.ops import gelu, rms_norm, swiglu\n"
        "x = mx.array(np.linspace(-9, 9, 3 * 75, dtype=np.float32).reshape(3, 75))\n"
        "d = np.array(x, np.float64)\n"
        "n = d / np.sqrt((d ** 2).mean(-1, keepdims=True) + 1e-5)\n"
        "assert np.abs(np.array(rms_norm(x, mx.ones(75), 1e-5)) - n).max() < 2e-6\n"
        "assert np.abs(np.array(swiglu(x, x)) - d * d / (1 + np.exp(-d))).max() < 5e-5\n"
        "assert abs(float(gelu(mx.ones(1))[0]) - 0.8413447) < 1e-6\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"VOXFAST_ISA": isa}, check=True)
