"""The ops on what no model gives them: huge, empty, misaligned, not finite.

Run under AddressSanitizer and UndefinedBehaviorSanitizer by tools/sanitize: there a wrong
address is a failure although the result may be right.
"""

import subprocess
import sys
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import attention, error, inputs, normal, to_numpy

from voxfast.ops import (
    alignment_frame,
    linear,
    log_mel,
    rms_norm,
    rotary_tables,
    sliding_attention,
    swiglu,
    use_native,
)

FLOATS = (mx.float32, mx.float16, mx.bfloat16)
MOST = 2**31 - 1
BAD = (float("nan"), float("inf"), float("-inf"))

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def vast(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """An array of any shape that takes the memory of one element."""
    return mx.broadcast_to(mx.zeros((1,), dtype), shape)


# ---- sizes beyond every memory ----------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        # Elements that wrap around to few, or to none, when they are counted in 64 bits.
        lambda: linear(vast(1 << 30, 16, 32), vast(1 << 30, 32)),
        lambda: linear(vast(1 << 30, 4, 32), vast((1 << 30) + 1, 32)),
        lambda: linear(vast(MOST, 32), vast(MOST, 32)),
        lambda: log_mel(vast(MOST, MOST)),
        lambda: log_mel(vast(1 << 30, 1 << 30, 400)),
        lambda: rms_norm(vast(MOST, MOST, 16), vast(16), 1e-5),
        lambda: rms_norm(vast(1 << 30, 1 << 30, 16), vast(16), 1e-5),
        lambda: swiglu(vast(1 << 30, 1 << 30, 16), vast(1 << 30, 1 << 30, 16)),
        lambda: sliding_attention(
            vast(1 << 30, 1, 1 << 30, 16),
            vast(1 << 30, 1, 1, 16),
            vast(1 << 30, 1, 1, 16),
            vast(1 << 30, 1, 8, 16),
            vast(1 << 30, 1, 8, 16),
            0,
            window=4,
            scale=1.0,
        ),
        lambda: alignment_frame(
            [vast(1 << 30, 1, 1 << 30, 16)], [vast(1 << 30, 1, 8, 16)], [[0]], 0, 8
        ),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_sizes_that_no_memory_holds_are_refused_when_the_graph_is_built(
    call: Callable[[], object], native: bool
) -> None:
    with use_native(native), pytest.raises(ValueError, match="elements"):
        call()


def test_memory_that_is_not_there_is_an_error_at_evaluation() -> None:
    """2^42 bytes; the next op on the stream works as before."""
    code = """
import os, resource
import mlx.core as mx
from voxfast.ops import linear
if "ASAN_OPTIONS" not in os.environ:  # it maps terabytes, and refuses 2^40 bytes itself
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (1 << 36 if most < 0 else min(most, 1 << 36), most))
x = mx.broadcast_to(mx.zeros((1,)), (1 << 20, 32))
try:
    mx.eval(linear(x, x, stream=mx.cpu))
except (RuntimeError, MemoryError, ValueError):
    print("refused")
assert mx.array_equal(linear(mx.ones((2, 32)), mx.ones((3, 32))), mx.full((2, 3), 32.0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr


# ---- nothing at all ---------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
def test_no_rows(native: bool) -> None:
    with use_native(native):
        for shape in ((0, 32), (3, 0, 32), (0, 0, 32)):
            assert linear(mx.zeros(shape), mx.ones((5, 32))).shape == (*shape[:-1], 5)
            assert rms_norm(mx.zeros(shape), mx.ones(32), 1e-5).shape == shape
            assert swiglu(mx.zeros(shape), mx.zeros(shape)).shape == shape
            for result in (
                linear(mx.zeros(shape), mx.ones((5, 32))),
                rms_norm(mx.zeros(shape), mx.ones(32), 1e-5),
                swiglu(mx.zeros(shape), mx.zeros(shape)),
            ):
                assert np.array(result).size == 0
        for shape in ((4, 0), (0,), ()):
            assert np.array(swiglu(mx.zeros(shape), mx.zeros(shape))).shape == shape


@pytest.mark.parametrize(
    "changes",
    [
        {"q": mx.zeros((1, 1, 0, 16))},
        {"q": mx.zeros((0, 1, 4, 16))},
        {"q": mx.zeros((1, 1, 4, 0)), "k": mx.zeros((1, 1, 2, 0)), "v": mx.zeros((1, 1, 2, 0))},
        {"k": mx.zeros((1, 1, 0, 16)), "v": mx.zeros((1, 1, 0, 16))},
        {"keys": mx.zeros((1, 2, 0, 16)), "values": mx.zeros((1, 2, 0, 16))},
        {"keys": mx.zeros((1, 0, 8, 16)), "values": mx.zeros((1, 0, 8, 16))},
        {"offset": mx.zeros((0,), mx.int64)},
    ],
)
def test_attention_without_heads_rows_or_ring_is_refused(changes: dict[str, mx.array]) -> None:
    arguments = {**inputs(), "offset": 0, "window": 4, "scale": 1.0, **changes}
    with pytest.raises(ValueError, match=r"^\[sliding_attention\]"):
        sliding_attention(**arguments)


def test_weights_without_size_are_refused() -> None:
    for x, w in (((2, 0), (3, 0)), ((2, 4), (0, 4)), ((), (3, 4)), ((2, 4), (4,))):
        with pytest.raises(ValueError, match=r"^\[linear\]"):
            linear(mx.zeros(x), mx.zeros(w))
    for heads in ([[]], [[0, 0]], [[-1]], [[2]], [[MOST]]):
        with pytest.raises(ValueError, match=r"^\[alignment_frame\]"):
            alignment_frame([mx.zeros((1, 2, 1, 4))], [mx.zeros((1, 1, 6, 4))], heads, 0, 6)
    for first, count in ((0, 0), (-1, 3), (0, -3), (0, 7), (7, 1), (MOST, MOST), (1, MOST)):
        with pytest.raises(ValueError, match=r"^\[alignment_frame\]"):
            alignment_frame([mx.zeros((1, 2, 1, 4))], [mx.zeros((1, 1, 6, 4))], [[0]], first, count)


# ---- numbers at the ends of their ranges ------------------------------------------------


@pytest.mark.parametrize("window", [MOST, MOST - 1])
@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize("native", [True, False])
def test_a_window_without_end(window: int, length: int, native: bool) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (normal(rng, (1, length, 2, 16), mx.float32) for _ in range(3))
    ring = mx.zeros((1, 2, 64, 16))
    with use_native(native):
        out = sliding_attention(q, k, v, ring, ring + 0, 0, window=window, scale=0.25)[0]
        reference = attention(to_numpy(q), to_numpy(k), to_numpy(v), window, 0.25)
        assert error(out, reference) < 1e-5
        with pytest.raises(ValueError, match="too small"):
            sliding_attention(q, k, v, ring, ring + 0, 64, window=window, scale=0.25)


@pytest.mark.parametrize("offset", [2**31 - 2, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**61])
@pytest.mark.parametrize("length", [1, 5])
def test_years_of_positions(offset: int, length: int) -> None:
    """A ring at a huge offset gives what the same rows give at a small one."""
    rng = np.random.default_rng(1)
    window, capacity = 6, 10
    period = 256 * capacity  # the order of sums depends on positions modulo 256
    small = offset % period + period
    results = []
    rows = [[normal(rng, (1, length, 2, 16), mx.float32) for _ in range(3)] for _ in range(4)]
    for start in (small, offset):
        keys, values = mx.zeros((1, 2, capacity, 16)), mx.zeros((1, 2, capacity, 16))
        outs = []
        for i, (q, k, v) in enumerate(rows):
            out, keys, values = sliding_attention(
                q, k, v, keys, values, start + i * length, window=window, scale=0.25
            )
            outs.append(np.array(out))
        results.append(np.concatenate([*outs, np.array(keys).swapaxes(1, 2)], axis=1))
    np.testing.assert_array_equal(results[0], results[1])


def test_rotary_tables_end_where_float64_has_no_integers() -> None:
    cos, _ = rotary_tables(2**53 - 4, 4, 8, 1e4)
    assert cos.shape == (1, 4, 4)
    for offset, length in ((2**53 - 3, 4), (2**70, 1), (0, 2**53 + 1)):
        with pytest.raises(ValueError, match=r"2\^53"):
            rotary_tables(offset, length, 8, 1e4)


@pytest.mark.parametrize("value", [2**31, 2**63, 2**64, -(2**31) - 1])
def test_numbers_that_do_not_fit_are_refused(value: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        sliding_attention(**inputs(), offset=0, window=value, scale=1.0)
    with pytest.raises((ValueError, TypeError)):
        log_mel(mx.zeros(400), n_mels=value)
    with pytest.raises((ValueError, TypeError)):
        linear(mx.zeros((1, 64)), mx.zeros((1, 8), mx.uint32), group_size=value)


# ---- activations that are not finite ----------------------------------------------------


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [3, 40])
def test_a_row_that_is_not_finite_spoils_no_other(bad: float, dtype: mx.Dtype, rows: int) -> None:
    rng = np.random.default_rng(2)
    x, w = normal(rng, (rows, 96), dtype), normal(rng, (33, 96), dtype)
    spoiled = mx.array(x)
    spoiled[1, 17] = bad
    packed = mx.quantize(w, 32, 4)
    others = np.delete(np.arange(rows), 1)
    for call in (
        lambda x: linear(x, w),
        lambda x: linear(x, *packed, group_size=32),
        lambda x: rms_norm(x, w[0], 1e-5),
        lambda x: swiglu(x, x),
    ):
        good, found = to_numpy(call(x)), to_numpy(call(spoiled))
        np.testing.assert_array_equal(found[others], good[others])
        assert not np.isfinite(found[1]).all() or call(x).shape == x.shape


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("length", [1, 7])
def test_attention_recovers_when_the_window_has_passed(bad: float, length: int) -> None:
    rng = np.random.default_rng(3)
    window, steps = 9, 8
    q, k, v = (normal(rng, (1, length * steps, 2, 16), mx.float32) for _ in range(3))
    spoiled_k, spoiled_v = mx.array(k), mx.array(v)
    spoiled_k[0, 0, 0, 3] = spoiled_v[0, 0, 1, 5] = bad
    outs = []
    for keys_in, values_in in ((k, v), (spoiled_k, spoiled_v)):
        keys = values = mx.zeros((1, 2, window + length - 1, 16))
        parts = []
        for i in range(0, length * steps, length):
            rows = slice(i, i + length)
            out, keys, values = sliding_attention(
                q[:, rows], keys_in[:, rows], values_in[:, rows], keys, values, i,
                window=window, scale=0.25,
            )  # fmt: skip
            parts.append(np.array(out))
        outs.append(np.concatenate(parts, axis=1))
    # Exact again from the first call whose rows do not see the bad one.
    clean = -(-window // length) * length
    if clean < length * steps:
        np.testing.assert_array_equal(outs[0][:, clean:], outs[1][:, clean:])


# ---- how arrays lie in memory -----------------------------------------------------------


def misplaced(x: mx.array, shift: int) -> mx.array:
    """The same numbers, ``shift`` bytes beyond an aligned address."""
    data = np.array(mx.contiguous(x).view(mx.uint8)).reshape(-1)
    moved = mx.array(np.concatenate([np.zeros(shift, np.uint8), data]))
    return moved[shift:].view(x.dtype).reshape(x.shape)


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_views_of_bytes_that_are_not_aligned(shift: int, dtype: mx.Dtype) -> None:
    rng = np.random.default_rng(4)
    x, w, y = (normal(rng, shape, dtype) for shape in ((5, 64), (7, 64), (5, 64)))
    samples = normal(rng, (1000,), dtype)
    for call, arrays in (
        (linear, (x, w)),
        (lambda x, w: rms_norm(x, w, 1e-5), (x, w[0])),
        (swiglu, (x, y)),
        (log_mel, (samples,)),
        (
            lambda q, k: alignment_frame([q], [k], [[0, 1]], 0, 7),
            (x[None, :2, None], w[None, None]),
        ),
    ):
        expected = to_numpy(call(*arrays))
        moved = [misplaced(array, shift) for array in arrays]
        np.testing.assert_array_equal(to_numpy(call(*moved)), expected)


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [1, 9])
def test_products_of_bytes_that_are_not_aligned(shift: int, dtype: mx.Dtype, rows: int) -> None:
    rng = np.random.default_rng(5)
    x, w, bias = (normal(rng, shape, dtype) for shape in ((rows, 128), (7, 128), (7,)))
    for part in (np.s_[:, :128], np.s_[:, :61], np.s_[:, ::2], np.s_[:, 121::-2]):
        expected = linear(x[part], w[part], bias=bias)
        moved = [misplaced(array, shift) for array in (x, w, bias)]
        found = linear(moved[0][part], moved[1][part], bias=moved[2])
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    for bits in (2, 3, 4, 5, 6, 8):
        packed = [x, *mx.quantize(w, group_size=32, bits=bits), bias]
        expected = linear(*packed, group_size=32, bits=bits)
        found = linear(*(misplaced(array, shift) for array in packed), group_size=32, bits=bits)
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


def test_attention_on_misaligned_rows() -> None:
    x = inputs(length=3, capacity=8)
    options = {"offset": 2, "window": 5, "scale": 0.25}
    expected = sliding_attention(**x, **options)
    mx.eval(expected)
    moved = {name: misplaced(array, 2) for name, array in x.items()}
    found = sliding_attention(**moved, **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_views_that_run_backwards_overlap_or_stand_still(dtype: mx.Dtype) -> None:
    rng = np.random.default_rng(5)
    base = normal(rng, (40, 96), dtype)
    views = {
        "backwards": base[::-1, ::-1],
        "every third": base[::3, ::1],
        "turned": mx.contiguous(base.T).T,
        "overlapping": mx.as_strided(base, (30, 64), (7, 1)),
        "standing": mx.broadcast_to(base[:1], (6, 96)),
        "one column": mx.broadcast_to(base[:, :1], (40, 64)),
    }
    for name, view in views.items():
        plain = mx.array(to_numpy(view).astype(np.float32)).astype(dtype)
        w = normal(rng, (5, view.shape[1]), dtype)
        for call in (
            lambda x, w=w: linear(x, w),
            lambda x, w=w: rms_norm(x, w[0], 1e-5),
            lambda x: swiglu(x, x[::-1]),
        ):
            np.testing.assert_array_equal(to_numpy(call(view)), to_numpy(call(plain)), name)
