"""SlidingKVCache: streaming equals the whole, going back equals never having gone."""

import threading

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import DTYPES, TOLERANCE, attention, error, normal, rotate, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfast.cache as cache_module
from voxfast._native import _ext
from voxfast.bench.measure import resident_mb
from voxfast.cache import SlidingKVCache
from voxfast.ops import rotary_tables, use_native

SCALE = 0.25
BACK = st.sampled_from([0, 0, 0, 0, 0, 1, 1, 2, 3, 5, 8])  # positions taken back after a step

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def sequence(length, heads=4, kv_heads=2, size=16, batch=1, dtype=mx.float32, seed=0):
    """q, k, v of a whole sequence."""
    rng = np.random.default_rng(seed)
    return (
        normal(rng, (batch, length, heads, size), dtype),
        normal(rng, (batch, length, kv_heads, size), dtype),
        normal(rng, (batch, length, kv_heads, size), dtype),
    )


def attend(cache, qkv, first, last):
    return cache.attend(*(x[:, first:last] for x in qkv), scale=SCALE)


def feed(cache, qkv, chunks, first=0):
    outs, turn, length = [], 0, qkv[0].shape[1]
    while first < length:
        last = min(first + chunks[turn % len(chunks)], length)
        outs.append(attend(cache, qkv, first, last))
        first, turn = last, turn + 1
    return mx.concatenate(outs, axis=1)


def reference(qkv, window):
    return attention(*(to_numpy(x) for x in qkv), window, SCALE)


# ---- streaming ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    chunks=st.lists(st.sampled_from([1, 2, 3, 5, 8, 31]), min_size=1, max_size=4),
    window=st.sampled_from([1, 2, 3, 7, 40]),
    block=st.sampled_from([1, 3, 16, 256]),
    spare=st.sampled_from([0, 0, 4]),
    batch=st.sampled_from([1, 2]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_chunks_equal_the_whole_sequence(chunks, window, block, spare, batch, dtype):
    qkv = sequence(120, batch=batch, dtype=dtype)
    cache = SlidingKVCache(window, max_rows=max(chunks) + spare, block=block)
    out = feed(cache, qkv, chunks)
    assert error(out, reference(qkv, window)) < TOLERANCE[dtype]
    assert cache.offset == 120


@pytest.mark.parametrize("start", [0, 130_000_000, 2**31 + 5])
def test_rotary_positions_count_from_start(start):
    qkv = sequence(60, size=32)
    cache = SlidingKVCache(20, max_rows=7, start=start)
    outs = []
    for first, last in [(0, 7), (7, 8), (8, 15), (15, 20), *((n, n + 1) for n in range(20, 60))]:
        assert cache.offset == start + first
        rotary = rotary_tables(cache.offset, last - first, 32, 1e6)
        q, k, v = (x[:, first:last] for x in qkv)
        outs.append(cache.attend(q, k, v, scale=SCALE, rotary=rotary, traditional=False))
    q, k = (rotate(to_numpy(x), start, 1e6, False) for x in qkv[:2])
    expected = attention(q, k, to_numpy(qkv[2]), 20, SCALE)
    assert error(mx.concatenate(outs, axis=1), expected) < 1e-5


def test_a_step_is_lazy():
    cache = SlidingKVCache(4)
    nothing = mx.array(0.0)
    for _ in range(3):
        q, k, v = (x + nothing for x in sequence(1))
        out = attend(cache, (q, k, v), 0, 1)
    graph = out
    assert cache.offset == 3
    mx.eval(graph, cache.state)


@pytest.mark.parametrize("evaluate", ["state", "output"])
def test_steps_copy_nothing(evaluate):
    qkv = sequence(900)
    mx.eval(qkv)
    cache = SlidingKVCache(100, max_rows=3, block=16)
    before = _ext.ring_copies()
    for n in range(0, 900, 3):
        out = attend(cache, qkv, n, n + 3)
        mx.eval(cache.state if evaluate == "state" else out)
    assert _ext.ring_copies() == before


# ---- sizes ----------------------------------------------------------------------------


def test_rings_grow_in_blocks_up_to_their_size(monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_FULL_RING_BYTES", 0)  # as on a GPU
    qkv = sequence(200, size=8)
    row = 2 * 2 * 8 * 4  # keys and values, 2 heads, 8 floats
    cache = SlidingKVCache(50, max_rows=4, block=16)
    assert (cache.state, cache.offset) == ((), 0)
    sizes = []
    for n in range(0, 200, 4):
        attend(cache, qkv, n, n + 4)
        sizes.append(sum(ring.nbytes for ring in cache.state) / row)
    assert sizes[:5] == [16, 16, 16, 16, 32]
    assert sorted(set(sizes)) == [16, 32, 48, 53]


@pytest.mark.parametrize("kv_bits", [None, 8])
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [16, 40, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_never_written_is_never_read(monkeypatch, kv_bits, native, size, dtype):
    def poison(shape, dtype, *, stream=None):
        return mx.full(shape, -1 if dtype == mx.int8 else float("nan"), dtype)  # a scale of NaN

    def run(empty):
        monkeypatch.setattr(_ext, "empty", empty)
        cache = SlidingKVCache(40, max_rows=8, kv_bits=kv_bits)
        outs = [feed(cache, [x[:, :30] for x in qkv], (1, 8, 3))]
        cache = cache.copy()
        cache.trim(2)
        return mx.concatenate([*outs, feed(cache, qkv, (8, 1, 5), first=28)], axis=1)

    qkv = sequence(150, size=size, dtype=dtype)
    with use_native(native):
        expected = run(lambda shape, dtype, *, stream=None: mx.zeros(shape, dtype))
        assert mx.array_equal(run(poison), expected)


def test_a_ring_takes_no_memory_before_it_is_written_to():
    qkv = sequence(3, size=256)
    before = resident_mb()
    caches = [SlidingKVCache(6000, max_rows=4) for _ in range(16)]
    for cache in caches:
        mx.eval(attend(cache, qkv, 0, 3), cache.state)
    copies = [cache.copy() for cache in caches]
    for cache in (*caches, *copies):
        mx.eval(attend(cache, qkv, 0, 3), cache.state)
    room = sum(ring.nbytes for cache in (*caches, *copies) for ring in cache.state) / 1e6
    assert room > 700
    assert resident_mb() - before < 70


def test_a_ring_that_could_be_large_grows_in_blocks():
    qkv = sequence(2, size=256)
    cache = SlidingKVCache(20_000)
    attend(cache, qkv, 0, 1)
    assert [ring.shape[2] for ring in cache.state] == [256, 256]


@pytest.mark.parametrize(("rows", "back"), [(9, 0), (9, 1), (9, 9), (60, 0), (60, 8), (32, 5)])
def test_a_copy_goes_on_from_the_rows_that_are_there(rows, back):
    """Also if the rings have wrapped, and if what was taken back had overwritten others."""
    qkv = sequence(100)
    cache = SlidingKVCache(20, max_rows=9)
    feed(cache, [x[:, :rows] for x in qkv], (9, 3))
    cache.trim(back)
    other = cache.copy()
    expected = reference(qkv, 20)[:, rows - back :]
    for each in (other, cache):
        assert each.offset == rows - back
        assert each._most_trimmed() == (rows - back if rows < 29 else 9 - back)
        out = feed(each, qkv, (4, 1), first=rows - back)
        assert error(out, expected) < TOLERANCE[mx.float32]
    assert other.trim(8) == cache.trim(8) == 8


def test_a_copy_may_go_on_in_another_thread():
    qkv = sequence(12)
    cache = SlidingKVCache(20, max_rows=9)
    mx.eval(attend(cache, qkv, 0, 9), cache.state)
    other, found = cache.copy(), []

    def work():
        with mx.stream(mx.new_stream(mx.cpu)):
            found.append(np.array(attend(other, qkv, 9, 12)))
        mx.clear_streams()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], np.array(attend(cache, qkv, 9, 12)))


# ---- going back -----------------------------------------------------------------------


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    window=st.sampled_from([1, 2, 5, 20]),
    max_rows=st.sampled_from([1, 3, 8]),
    block=st.sampled_from([1, 16]),
    moves=st.lists(st.tuples(st.integers(1, 8), BACK), min_size=1, max_size=60),
)
def test_trimming_equals_never_having_written(window, max_rows, block, moves):
    rng = np.random.default_rng(len(moves))
    cache = SlidingKVCache(window, max_rows=max_rows, block=block)
    kept = [mx.zeros((1, 0, heads, 16)) for heads in (4, 2, 2)]
    furthest = 0
    for length, back in moves:
        length = min(length, max_rows)
        new = [normal(rng, (1, length, heads, 16), mx.float32) for heads in (4, 2, 2)]
        kept = [mx.concatenate([a, b], axis=1) for a, b in zip(kept, new, strict=True)]
        out = attend(cache, new, 0, length)
        assert error(out, reference(kept, window)[:, -length:]) < TOLERANCE[mx.float32]
        rows = kept[0].shape[1]
        furthest = max(furthest, rows)
        try:
            assert cache.trim(back) == back
        except ValueError:
            assert back > min(rows, max_rows - (furthest - rows))
            assert cache.offset == rows
        else:
            kept = [x[:, : rows - back] for x in kept]
            assert cache.offset == rows - back


def test_how_much_can_be_taken_back():
    qkv = sequence(100)
    cache = SlidingKVCache(10, max_rows=4, block=1)
    assert cache.trim(0) == 0
    feed(cache, qkv, (4,))
    with pytest.raises(ValueError, match=r"cannot take back 5 of 100 rows; at most 4"):
        cache.trim(5)
    assert cache.trim(3) == 3
    with pytest.raises(ValueError, match="at most 1"):
        cache.trim(2)
    assert cache.trim(1) == 1
    assert cache.offset == 96
    with pytest.raises(ValueError, match="-1"):
        cache.trim(-1)
    # One row more, and one row may go again: the furthest row is still the hundredth.
    attend(cache, qkv, 96, 97)
    with pytest.raises(ValueError, match="at most 1"):
        cache.trim(2)
    assert cache.trim(1) == 1


def test_everything_can_be_taken_back_before_the_ring_wraps():
    qkv = sequence(13)
    cache = SlidingKVCache(10, max_rows=4)
    first = feed(cache, qkv, (4,))
    assert cache.trim(13) == 13
    assert cache.offset == 0
    assert mx.array_equal(feed(cache, qkv, (4,)), first)


# ---- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"window": 3, "max_rows": 0},
        {"window": 3, "block": 0},
        {"window": 3, "start": -1},
    ],
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match="SlidingKVCache"):
        SlidingKVCache(**options)


@pytest.mark.parametrize("rows", [0, 9])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((4, 2, 2, 5, 16, mx.float32), "1 to 4 rows; got 5"),
        ((4, 2, 2, 0, 16, mx.float32), "got 0"),
        ((4, 2, 2, 1, 16, mx.int32), "float32, float16"),
        ((3, 2, 2, 1, 16, mx.float32), "multiple of that of k and v"),
        ((4, 2, 1, 1, 16, mx.float32), "heads"),
        ((4, 2, 2, 1, 600, mx.float32), "D <= 512"),
    ],
)
def test_a_failed_call_leaves_the_cache_as_it_was(rows, wrong, message):
    heads, kv_heads, v_heads, length, size, dtype = wrong
    qkv = sequence(20)
    caches = [SlidingKVCache(6, max_rows=4, block=4) for _ in range(2)]
    for cache in caches:
        feed(cache, [x[:, :rows] for x in qkv], (4,)) if rows else None
    new = (mx.zeros((1, length, n, size), dtype) for n in (heads, kv_heads, v_heads))
    with pytest.raises(ValueError, match=message):
        caches[0].attend(*new, scale=SCALE)
    assert caches[0].offset == caches[1].offset
    a, b = (feed(cache, qkv, (4,), first=rows) for cache in caches)
    assert mx.array_equal(a, b)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 1, 2, 16), mx.float32), ((1, 1, 3, 16), mx.float32), ((1, 1, 2, 8), mx.float32),
     ((1, 1, 2, 16), mx.float16), ((1, 2, 16), mx.float32), ((1, 2, 2, 16), mx.float32)],
)  # fmt: skip
def test_rows_that_do_not_fit_those_before(shape, dtype):
    cache = SlidingKVCache(6)
    feed(cache, sequence(9), (1,))
    rows = mx.zeros(shape, dtype)
    with pytest.raises(ValueError, match=r"attention|SlidingKVCache"):
        cache.attend(rows, rows, rows, scale=SCALE)
    assert cache.offset == 9
