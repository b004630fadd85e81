"""sliding_attentions: several streams in one op, with the bits of one call for each."""

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import DTYPES, quantized
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast import ops
from voxfast._native import _ext
from voxfast.cache import SlidingKVCache, attend_streams

HEADS, KV_HEADS, SIZE = 4, 2, 32

# A stream: its first position, its rows, how much larger its ring is than it must be, and
# whether the ring is in 8 bits.
STREAM = st.tuples(
    st.one_of(st.integers(0, 700), st.integers(2**33, 2**33 + 300)),
    st.integers(1, 20),
    st.sampled_from([0, 0, 1, 17, 300]),
    st.booleans(),
)


def normal(rng: np.random.Generator, *shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(rng.standard_normal(shape)).astype(dtype)


def bits(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32))


class Streams:
    """Random streams, their rows and rings."""

    def __init__(self, streams, window: int, dtype: mx.Dtype, rotary: bool, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.offsets = [offset for offset, *_ in streams]
        self.lengths = [length for _, length, *_ in streams]
        rows = sum(self.lengths)
        self.q = normal(rng, 1, rows, HEADS, SIZE, dtype=dtype)
        self.k, self.v = (normal(rng, 1, rows, KV_HEADS, SIZE, dtype=dtype) for _ in range(2))
        self.rings = []
        for offset, length, slack, in_bits in streams:
            capacity = min(offset, window - 1) + length + slack
            shape = (1, KV_HEADS, max(capacity, length), SIZE)
            ring = tuple(normal(rng, *shape, dtype=dtype) for _ in range(2))
            self.rings.append(tuple(map(quantized, ring)) if in_bits else ring)
        self.options = {"window": window, "scale": SIZE**-0.5}
        self.rotary = rotary

    def tables(self, offsets, lengths):
        return ops.rotary_tables(offsets, lengths, SIZE, 1e4) if self.rotary else None

    def together(self):
        out, rings = ops.sliding_attentions(
            self.q, self.k, self.v, self.rings, self.offsets, self.lengths,
            rotary=self.tables(self.offsets, self.lengths), **self.options,
        )  # fmt: skip
        mx.eval(out, rings)
        return out, rings

    def each(self):
        first, outs, rings = 0, [], []
        for offset, length, ring in zip(self.offsets, self.lengths, self.rings, strict=True):
            part = slice(first, first + length)
            out, *ring = ops.sliding_attention(
                self.q[:, part], self.k[:, part], self.v[:, part], *ring, offset,
                rotary=self.tables(offset, length), **self.options,
            )  # fmt: skip
            outs.append(out)
            rings.append(ring)
            first += length
        out = mx.concatenate(outs, axis=1)
        mx.eval(out, rings)
        return out, rings


@pytest.mark.parametrize("native", [True, False])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    streams=st.lists(STREAM, min_size=1, max_size=9),
    window=st.sampled_from([1, 2, 60, 300]),
    dtype=st.sampled_from(DTYPES),
    rotary=st.booleans(),
    causal=st.booleans(),
)
def test_streams_have_the_bits_of_one_call_each(native, streams, window, dtype, rotary, causal):
    case = Streams(streams, window, dtype, rotary)
    case.options["causal"] = causal
    with ops.use_native(native):
        (out, rings), (expected, kept) = case.together(), case.each()
    np.testing.assert_array_equal(bits(out), bits(expected))
    for ring, one in zip(rings, kept, strict=True):
        for written, alone in zip(ring, one, strict=True):
            np.testing.assert_array_equal(bits(written), bits(alone))


@pytest.mark.usefixtures("on_the_cpu")
def test_rings_are_written_in_place():
    streams = [(5, 1, 80, False), (70, 3, 0, True), (2000, 1, 4, False)]
    case = Streams(streams, 64, mx.float32, rotary=True)
    mx.eval(case.q, case.k, case.v, case.rings)
    before = _ext.ring_copies()
    for _ in range(3):
        rings, case.rings = case.rings, []
        out, case.rings = ops.sliding_attentions(
            case.q, case.k, case.v, rings, case.offsets, case.lengths, **case.options
        )
        del rings
        mx.eval(out, case.rings)
    assert _ext.ring_copies() == before
    held = case.rings[1]  # a reference of another: that ring alone is copied
    rings, case.rings = case.rings, []
    out, case.rings = ops.sliding_attentions(
        case.q, case.k, case.v, rings, case.offsets, case.lengths, **case.options
    )
    del rings
    mx.eval(out, case.rings, held)
    assert _ext.ring_copies() == before + 2


def caches_of(*windows: int) -> list[SlidingKVCache]:
    return [SlidingKVCache(window, max_rows=8, block=16) for window in windows]


def test_caches_of_streams_equal_caches_alone():
    """Streams that join, leave and differ in length share some calls and not others."""
    rng = np.random.default_rng(11)
    together, alone = caches_of(*[30] * 6), caches_of(*[30] * 6)
    for _ in range(60):
        chosen = rng.permutation(6)[: rng.integers(1, 7)].tolist()
        lengths = rng.integers(1, 9, len(chosen)).tolist()
        q = normal(rng, 1, sum(lengths), HEADS, SIZE)
        k, v = (normal(rng, 1, sum(lengths), KV_HEADS, SIZE) for _ in range(2))
        out = attend_streams([together[i] for i in chosen], q, k, v, lengths, scale=0.2)
        first = 0
        for i, length in zip(chosen, lengths, strict=True):
            part = slice(first, first + length)
            expected = alone[i].attend(q[:, part], k[:, part], v[:, part], scale=0.2)
            np.testing.assert_array_equal(np.array(out[:, part]), np.array(expected))
            first += length
            if alone[i].offset > 40:
                back = int(rng.integers(0, length + 1))
                assert together[i].trim(back) == alone[i].trim(back)
    assert [cache.offset for cache in together] == [cache.offset for cache in alone]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [1, 2]}, "the 3 rows of the streams"),
        ({"lengths": [4, 0]}, "at least one row; got 0"),
        ({"lengths": [1, 1, 2]}, "one or more streams; got 2, 2, 2 and 3"),
        ({"offsets": [3]}, "one or more streams; got 2, 2, 1 and 2"),
        ({"offsets": [3, -1]}, "offset must be in 0"),
        ({"offsets": [3, 10**6], "window": 400}, "too small for 3 new positions at offset 1000000"),
        ({"q": mx.zeros((2, 2, HEADS, SIZE))}, "k must be"),
        ({"k": mx.zeros((1, 5, KV_HEADS, SIZE))}, "k must be"),
        ({"v": mx.zeros((1, 4, KV_HEADS, SIZE), mx.float16)}, "v must have the dtype of q"),
        ({"rotary": ops.rotary_tables(3, 3, SIZE, 1e4)}, "cos must be"),
        ({"scale": float("nan")}, "scale finite"),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_wrong_arguments(native, changes, message):
    case = Streams([(3, 1, 90, False), (20, 3, 100, True)], 64, mx.float32, rotary=False)
    arguments = {
        "q": case.q, "k": case.k, "v": case.v, "rings": case.rings, "offsets": case.offsets,
        "lengths": case.lengths, **case.options,
    }  # fmt: skip
    with ops.use_native(native), pytest.raises(ValueError, match=message):
        ops.sliding_attentions(**{**arguments, **changes})


def test_no_streams():
    empty = mx.zeros((1, 0, HEADS, SIZE))
    with pytest.raises(ValueError, match="not empty"):
        ops.sliding_attentions(empty, empty, empty, [], [], [], window=5, scale=1.0)


def test_a_call_that_fails_changes_no_cache():
    caches = caches_of(30, 30)
    rng = np.random.default_rng(2)
    q, k, v = (normal(rng, 1, 9, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    attend_streams(caches, q, k, v, [4, 5], scale=0.2)
    for lengths in ([4, 4], [9, 0], [9]):
        with pytest.raises(ValueError, match=r"rows|argument"):
            attend_streams(caches, q, k, v, lengths, scale=0.2)
    with pytest.raises(ValueError, match=r"one window; got \[30, 31\]"):
        attend_streams([caches[0], *caches_of(31)], q, k, v, [4, 5], scale=0.2)
    assert [cache.offset for cache in caches] == [4, 5]


def test_tables_of_several_streams_are_those_of_each():
    spans = [(0, 3), (2**40, 1), (750, 39)]
    together = ops.rotary_tables(*zip(*spans, strict=True), 64, 1e6)
    each = [ops.rotary_tables(*span, 64, 1e6) for span in spans]
    for number in (0, 1):
        expected = np.concatenate([np.array(tables[number]) for tables in each], axis=1)
        np.testing.assert_array_equal(np.array(together[number]), expected)
    with pytest.raises(ValueError, match="length >= 1"):
        ops.rotary_tables([1, 2], [1, 0], 64, 1e6)
    with pytest.raises(ValueError, match="shorter"):
        ops.rotary_tables([1, 2], [1], 64, 1e6)
