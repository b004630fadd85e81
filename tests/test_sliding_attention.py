"""sliding_attention against float64 NumPy and against its composition."""

import threading

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import (
    ANY_STREAM,
    DTYPES,
    TOLERANCE,
    attention,
    error,
    inputs,
    normal,
    rotate,
    stream,
    to_numpy,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import run_sweep

from voxfast._native import _ext
from voxfast.ops import rotary_tables, sliding_attention, use_native
from voxfast.ops import rotate as rotate_op

CHUNKS = st.lists(st.sampled_from([1, 2, 3, 4, 5, 7, 13, 16, 31, 97]), min_size=1, max_size=4)
OFFSETS = (0, 130_000_000, 2**31 + 5)

pytestmark = pytest.mark.usefixtures("on_the_cpu")


# ---- results --------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, derandomize=True)
@given(size=st.sampled_from([1, 3, 31, 64, 80, 128, 256]), chunks=CHUNKS, **ANY_STREAM)
def test_any_stream_equals_the_whole_sequence(
    heads, size, window, chunks, slack, batch, length, dtype, native
):
    rng = np.random.default_rng(length)
    q = normal(rng, (batch, length, heads[0], size), dtype)
    k, v = (normal(rng, (batch, length, heads[1], size), dtype) for _ in range(2))
    with use_native(native):
        out = stream(q, k, v, chunks, window, capacity=window + max(chunks) - 1 + slack)
        mx.eval(out)
    reference = attention(to_numpy(q), to_numpy(k), to_numpy(v), window, size**-0.5)
    assert out.dtype == dtype
    # MLX's attention rounds the weights to the dtype, too.
    assert error(out, reference) < TOLERANCE[dtype] * (1 if native else 8)


def test_a_ring_that_never_wraps_may_be_smaller_than_the_window():
    rng = np.random.default_rng(1)
    q, k, v = (normal(rng, (1, 12, 2, 8), mx.float32) for _ in range(3))
    out = stream(q, k, v, (5,), 750, capacity=12)
    reference = attention(to_numpy(q), to_numpy(k), to_numpy(v), 750, 8**-0.5)
    assert error(out, reference) < TOLERANCE[mx.float32]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    heads=st.sampled_from([(1, 1), (14, 14), (6, 2)]),
    size=st.sampled_from([1, 31, 64, 256]),
    stored=st.sampled_from([0, 0, 1, 13, 91]),
    length=st.sampled_from([1, 2, 5, 13, 104]),
    window=st.sampled_from([3, 64, 750]),
    dtype=st.sampled_from(DTYPES),
    native=st.booleans(),
)
def test_without_causality_all_new_rows_see_what_the_last_sees(
    heads, size, stored, length, window, dtype, native
):
    rng = np.random.default_rng(length)
    q = normal(rng, (1, length, heads[0], size), dtype)
    k, v, old_k, old_v = (
        normal(rng, (1, rows, heads[1], size), dtype) for rows in (length, length, stored, stored)
    )
    empty = mx.zeros((1, max(stored, window - 1) + length, heads[1], size), dtype)
    rings = [
        mx.concatenate([old, empty], axis=1)[:, : empty.shape[1]].swapaxes(1, 2)
        for old in (old_k, old_v)
    ]
    with use_native(native):
        out, *_ = sliding_attention(
            q, k, v, *rings, stored, window=window, scale=size**-0.5, causal=False
        )
        mx.eval(out)
    keys, values = (
        np.concatenate([to_numpy(old), to_numpy(new)], axis=1)
        for old, new in ((old_k, k), (old_v, v))
    )
    reference = attention(to_numpy(q), keys, values, window, size**-0.5, causal=False)
    # MLX's attention rounds the weights to the dtype, too.
    assert error(out, reference) < TOLERANCE[dtype] * (1 if native else 8)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("traditional", [True, False])
@pytest.mark.parametrize("chunks", [(1,), (3, 1), (40,)])
def test_rotation_is_exact_at_any_offset(offset, traditional, chunks, native):
    rng = np.random.default_rng(2)
    window, theta = 24, 1e6
    q = normal(rng, (1, 90, 4, 64), mx.float32)
    k, v = (normal(rng, (1, 90, 2, 64), mx.float32) for _ in range(2))
    with use_native(native):
        out = stream(q, k, v, chunks, window, offset=offset, theta=theta, traditional=traditional)
        mx.eval(out)
    rotated = [rotate(to_numpy(x), offset, theta, traditional) for x in (q, k)]
    reference = attention(*rotated, to_numpy(v), window, 64**-0.5)
    seen = 0 if offset == 0 else window - 1  # before the first row the ring held zeros
    assert error(out[:, seen:], reference[:, seen:]) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotated_rows_are_rounded_to_the_dtype(dtype):
    x = inputs(length=3, size=32, dtype=dtype)
    cos, sin = rotary_tables(10, 3, 32, 1e4)
    _, keys, values = sliding_attention(
        **x, offset=10, window=4, scale=0.2, rotary=(cos, sin), traditional=False
    )
    expected = rotate(to_numpy(x["k"]), 10, 1e4, False).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(
        to_numpy(keys)[:, :, 2:5], expected, rtol=2 * TOLERANCE[dtype], atol=1e-6
    )
    assert mx.array_equal(values[:, :, 2:5], x["v"].swapaxes(1, 2))
    for new, old in ((keys, x["keys"]), (values, x["values"])):
        assert mx.array_equal(new[:, :, :2], old[:, :, :2])
        assert mx.array_equal(new[:, :, 5:], old[:, :, 5:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("traditional", [True, False, None])
@pytest.mark.parametrize(("heads", "length"), [((8, 2), 1), ((4, 4), 4), ((4, 2), 45)])
@pytest.mark.parametrize("offset", [[0, 5_000_003], 0, 40, 5_000_003, 120 * 50_000 + 119])
def test_native_equals_composed(dtype, traditional, heads, length, offset):
    x = inputs(*heads, size=64, length=length, capacity=120, batch=2, dtype=dtype)
    if isinstance(offset, list):
        offset = mx.array(offset, dtype=mx.int64)
    rotary = None if traditional is None else rotary_tables(5_000_003, length, 64, 1e6)
    options = {"window": 70, "scale": 0.125, "rotary": rotary, "traditional": bool(traditional)}
    native = sliding_attention(**x, offset=offset, **options)
    with use_native(False):
        composed = sliding_attention(**x, offset=offset, **options)
    for a, b in zip(native, composed, strict=True):
        # Each side rounds once more where it rotates.
        assert error(a, to_numpy(b)) < 4 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("traditional", [True, False])
def test_rotate_turns_as_attention_does(dtype, traditional):
    x = inputs(length=5, size=32, dtype=dtype)["q"]
    found = rotate_op(x, rotary_tables(10**9, 5, 32, 1e4), traditional=traditional)
    expected = rotate(to_numpy(x), 10**9, 1e4, traditional)
    assert found.dtype == dtype
    np.testing.assert_allclose(to_numpy(found), expected, rtol=2 * TOLERANCE[dtype], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "table", "dtype"),
    [((1, 5, 2, 31), (5, 16), mx.float32), ((1, 4, 2, 32), (5, 16), mx.float32),
     ((1, 5, 2, 32), (5, 8), mx.float32), ((1, 5, 2, 32), (5, 16), mx.int32),
     ((5, 2, 32), (5, 16), mx.float32)],
)  # fmt: skip
def test_rotate_refuses_what_does_not_fit(shape, table, dtype):
    tables = (mx.zeros((1, *table)), mx.zeros((1, *table)))
    with pytest.raises(ValueError, match=r"^\[rotate\] "):
        rotate_op(mx.zeros(shape, dtype), tables)


@pytest.mark.parametrize(("window", "length"), [(12, 5), (1100, 5), (1100, 1), (1100, 40)])
def test_batch_rows_have_their_own_offsets_and_rotation(window, length):
    """The bits of a row do not depend on its neighbours, though long ones are split."""
    offsets = [0, 3, 600, 2**31 + 5]
    x = inputs(4, 2, size=32, length=length, capacity=window + 40, batch=4, seed=3)
    tables = [rotary_tables(offset, length, 32, 1e4) for offset in offsets]
    rotary = tuple(mx.concatenate([table[i] for table in tables]) for i in range(2))
    options = {"window": window, "scale": 0.2}
    together = sliding_attention(
        **x, offset=mx.array(offsets, dtype=mx.int64), rotary=rotary, **options
    )
    for b, offset in enumerate(offsets):
        row = {name: array[b : b + 1] for name, array in x.items()}
        alone = sliding_attention(**row, offset=offset, rotary=tables[b], **options)
        for a, one in zip(together, alone, strict=True):
            assert mx.array_equal(a[b : b + 1], one)


def test_slots_go_on_across_two_to_the_31():
    rng = np.random.default_rng(4)
    q, k, v = (normal(rng, (1, 60, 2, 16), mx.float32) for _ in range(3))
    near, far = (stream(q, k, v, (7, 1), 10, offset=o) for o in (16 * 5, 2**31 - 32))
    assert error(near[:, 9:], to_numpy(far[:, 9:])) < TOLERANCE[mx.float32]


def test_a_long_stream_through_a_small_ring_stays_exact():
    rng = np.random.default_rng(5)
    n, window = 20_000, 60
    q, k, v = (normal(rng, (1, n, 1, 8), mx.float32) for _ in range(3))
    out = to_numpy(stream(q, k, v, (1, 5, 2, 3), window, capacity=64))[0, :, 0]
    q, k, v = (to_numpy(x)[0, :, 0] for x in (q, k, v))
    at = np.arange(n)[:, None] - np.arange(window)
    scores = np.einsum("nd,nwd->nw", q, k[at]) * 8**-0.5
    scores[at < 0] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    reference = np.einsum("nw,nwd->nd", weights / weights.sum(axis=1, keepdims=True), v[at])
    assert np.abs(out - reference).max() < TOLERANCE[mx.float32]


@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_scores_do_not_overflow(dtype, length):
    x = inputs(2, 2, size=64, length=length, capacity=80, dtype=dtype)
    options = {"offset": 40, "window": 40, "scale": 1e4}
    out = sliding_attention(**x, **options)[0]
    assert mx.all(mx.isfinite(out))
    assert float(mx.abs(out).max()) <= float(mx.abs(x["values"]).max()) + float(
        mx.abs(x["v"]).max()
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["q", "k", "v", "keys", "values"])
@pytest.mark.parametrize("length", [1, 40])
def test_numbers_that_are_none_stay_in_their_head(bad, where, length):
    x = inputs(4, 2, size=48, length=length, capacity=90, batch=2)
    clean = sliding_attention(**x, offset=70, window=50, scale=0.1)[0]
    poisoned = np.array(x[where])
    # Batch row 0, first KV head; the newest position or one inside every window.
    poisoned[0, -1 if where in "qkv" else 0, 0 if where in "qkv" else 65, 3] = bad
    x[where] = mx.array(poisoned)
    out = sliding_attention(**x, offset=70, window=50, scale=0.1)[0]
    assert mx.array_equal(out[1], clean[1])
    assert mx.array_equal(out[0, :, 2:], clean[0, :, 2:])
    assert not mx.array_equal(out[0, :, :2], clean[0, :, :2])


# ---- layouts --------------------------------------------------------------------------


def layouts(x):
    """Equal arrays that lie differently in memory."""
    b, length, heads, size = x.shape
    yield x
    yield mx.array(np.array(x).transpose(0, 2, 1, 3)).swapaxes(1, 2)
    yield mx.array(np.array(x).transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    wide = mx.zeros((b, length, 3 * heads, size))
    wide[:, :, heads : 2 * heads] = x
    yield wide[:, :, heads : 2 * heads]
    twice = mx.repeat(x, 2, axis=-1)
    yield twice[..., ::2]
    yield mx.array(np.array(x)[:, ::-1].copy())[:, ::-1]


@pytest.mark.parametrize("length", [1, 4, 40])
def test_queries_keys_and_values_in_any_layout(length):
    x = inputs(6, 2, size=64, length=length, capacity=70)
    rotary = rotary_tables(50, length, 64, 1e4)
    options = {"offset": 50, "window": 30, "scale": 0.1, "rotary": rotary}
    expected = sliding_attention(**x, **options)
    mx.eval(x, expected)
    for q, k, v in zip(layouts(x["q"]), layouts(x["k"]), layouts(x["v"]), strict=True):
        result = sliding_attention(**{**x, "q": q, "k": k, "v": v}, **options)
        for a, b in zip(result, expected, strict=True):
            assert mx.array_equal(a, b)


def test_rings_tables_and_offsets_in_any_layout():
    x = inputs(6, 2, size=64, length=3, capacity=70, batch=2)
    cos, sin = (mx.repeat(table, 2, axis=-1) for table in rotary_tables(50, 3, 64, 1e4))
    offset = mx.array([50, 0, 60, 0], dtype=mx.int64)
    options = {"window": 30, "scale": 0.1}
    expected = sliding_attention(
        **x,
        offset=mx.array([50, 60], dtype=mx.int64),
        rotary=rotary_tables(50, 3, 64, 1e4),
        **options,
    )
    mx.eval(x, expected)
    for keys in layouts(x["keys"]):
        values = mx.array(np.array(x["values"]).transpose(2, 0, 1, 3)).transpose(1, 2, 0, 3)
        before = _ext.ring_copies()
        result = sliding_attention(
            **{**x, "keys": keys, "values": values},
            offset=offset[::2],
            rotary=(cos[..., ::2], sin[..., ::2]),
            **options,
        )
        for a, b in zip(result, expected, strict=True):
            assert mx.array_equal(a, b)
        assert _ext.ring_copies() == before + 2  # keys are held here, values lie otherwise


# ---- threads and instruction sets -----------------------------------------------------


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_every_instruction_set(isa):
    assert run_sweep("attention_reference", VOXFAST_ISA=isa)[0] == isa


@pytest.mark.parametrize("threads", ["1", "13"])
def test_any_number_of_threads(threads):
    assert run_sweep("attention_reference", VOXFAST_NUM_THREADS=threads)[1] == threads


def test_many_threads_may_call_at_once():
    errors = []

    def work(seed):
        try:
            s = mx.new_stream(mx.cpu)
            rng = np.random.default_rng(seed)
            q, k, v = (normal(rng, (1, 200, 4, 64), mx.float32) for _ in range(3))
            with mx.stream(s):
                out = stream(q, k, v, (50, 1), 100)
                mx.eval(out)
            reference = attention(to_numpy(q), to_numpy(k), to_numpy(v), 100, 0.125)
            errors.append(error(out, reference))
        except Exception as exception:
            errors.append(exception)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(errors) == 4
    for found in errors:
        assert not isinstance(found, Exception), found
        assert found < TOLERANCE[mx.float32]


# ---- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": mx.zeros((1, 1, 4, 16), mx.int32)}, "float32, float16 or bfloat16"),
        ({"q": mx.zeros((1, 4, 16))}, r"q must be \[B, L, H, D\]"),
        ({"q": mx.zeros((1, 0, 4, 16))}, "not empty"),
        ({"q": mx.zeros((1, 1, 4, 513))}, "D <= 512"),
        ({"q": mx.zeros((1, 1, 3, 16))}, "multiple of that of k and v"),
        ({"k": mx.zeros((1, 2, 2, 16))}, "k must be"),
        ({"v": mx.zeros((1, 1, 2, 8))}, "v must be"),
        ({"v": mx.zeros((1, 1, 1, 16))}, "heads"),
        ({"v": mx.zeros((1, 1, 2, 16), mx.float16)}, "v must have the dtype of q"),
        ({"keys": mx.zeros((1, 2, 8, 8))}, "keys must be"),
        ({"values": mx.zeros((1, 2, 7, 16))}, "same capacity"),
        ({"values": mx.zeros((2, 2, 8, 16))}, "values must be"),
        ({"offset": -1}, "-1"),
        ({"offset": mx.array([0, 0], dtype=mx.int64)}, r"offset must be \[B\]"),
        ({"offset": mx.array([0])}, "int64"),
        ({"window": 0}, "at least 1"),
        ({"scale": float("nan")}, "finite"),
        ({"rotary": rotary_tables(0, 1, 8, 1e4)}, "cos must be"),
        ({"rotary": rotary_tables(0, 2, 16, 1e4)}, "cos must be"),
        ({"window": 9, "offset": 8}, "too small"),
        ({"window": 2, "offset": 2**62 + 2**61}, "2\\^62|too small|offset"),
    ],
)
def test_wrong_arguments(changes, message):
    arguments = {**inputs(), "offset": 0, "window": 4, "scale": 1.0, **changes}
    with pytest.raises((ValueError, RuntimeError), match=message) as caught:
        mx.eval(sliding_attention(**arguments))
    assert str(caught.value).startswith("[sliding_attention]")


@pytest.mark.parametrize("offset", [-1, -(2**62), 5, 2**62 + 1, 2**63 - 1])
def test_wrong_offsets_in_an_array_are_found_at_evaluation(offset):
    x = inputs(length=4, capacity=8, batch=2)
    contents = np.array(x["keys"])
    x["keys"] = x["keys"] + 0
    mx.eval(x)
    result = sliding_attention(
        **x, offset=mx.array([0, offset], dtype=mx.int64), window=6, scale=1.0
    )
    with pytest.raises(RuntimeError, match=r"\[sliding_attention\]"):
        mx.eval(result)
    np.testing.assert_array_equal(np.array(x["keys"]), contents)
    # The stream is as good as before.
    mx.eval(sliding_attention(**x, offset=0, window=5, scale=1.0))
