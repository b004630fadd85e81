"""sliding_attention: kernels, their composition, today's MLX backends, and the roofline.

    pytest benches/bench_sliding_attention.py --benchmark-enable

"native" are the kernels, "composed" is the same function composed of MLX's ops
(``use_native(False)``). The peers write with a slice update (one position) or a concatenation
and a banded mask (several), and call ``mx.fast.scaled_dot_product_attention``. The roofline is
one read of the window's keys and values on all threads or, where that takes longer, the
window's multiplications at the rate of a float32 product in NumPy.

Sixteen streams of one position each: ``sliding_attentions``, its composition, and "each", an op
for each stream with the rows split and joined again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import pytest
from roofline import product_rate, read_seconds

from voxfast._native import _ext
from voxfast.ops import sliding_attention, sliding_attentions, use_native

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass(frozen=True)
class Case:
    """B = 1; L new positions, H query and H_kv KV heads of D, a window."""

    length: int
    heads: int
    kv_heads: int
    size: int
    window: int

    @property
    def multiplications(self) -> int:
        return 2 * self.length * self.heads * self.window * self.size

    def roofline(self, dtype: mx.Dtype) -> float:
        """The least time, in seconds."""
        n_bytes = 2 * self.kv_heads * self.window * self.size * dtype.size
        return max(read_seconds(n_bytes), self.multiplications / product_rate())


CASES = {
    "decode": Case(1, 32, 8, 128, 8192),
    "decode-short": Case(1, 32, 8, 128, 750),
    "encode-1": Case(1, 32, 32, 64, 750),
    "encode-4": Case(4, 32, 32, 64, 750),
    "encode-100": Case(100, 32, 32, 64, 750),
    "prefill-38": Case(38, 32, 8, 128, 8192),
}


class Ring:
    """A caller of the op that owns its rings."""

    def __init__(self, case: Case, dtype: mx.Dtype, native: bool) -> None:
        self.case, self.native = case, native
        self.new = new_positions(case, dtype)
        capacity = case.window + case.length - 1
        shape = (1, case.kv_heads, capacity, case.size)
        self.rings = [mx.random.normal(shape).astype(dtype) for _ in range(2)]
        mx.eval(self.new, self.rings)
        self.offset = capacity

    def __call__(self) -> None:
        with use_native(self.native):
            out, *self.rings = sliding_attention(
                *self.new, *self.rings, self.offset, window=self.case.window, scale=0.1
            )
        self.offset += self.case.length
        mx.eval(out, self.rings)


class Peers:
    """The rotating caches of today's MLX backends."""

    def __init__(self, case: Case, dtype: mx.Dtype) -> None:
        self.case = case
        self.q, self.k, self.v = (x.swapaxes(1, 2) for x in new_positions(case, dtype))
        shape = (1, case.kv_heads, case.window, case.size)
        self.keys, self.values = (mx.random.normal(shape).astype(dtype) for _ in range(2))
        mx.eval(self.q, self.k, self.v, self.keys, self.values)
        self.slot = 0

    def __call__(self) -> None:
        length, window, mask = self.case.length, self.case.window, None
        if length == 1:
            self.keys[:, :, self.slot : self.slot + 1] = self.k
            self.values[:, :, self.slot : self.slot + 1] = self.v
            self.slot = (self.slot + 1) % window
        else:
            self.keys = mx.concatenate([self.keys[:, :, 1 - window :], self.k], axis=2)
            self.values = mx.concatenate([self.values[:, :, 1 - window :], self.v], axis=2)
            stored = mx.arange(window + length - 1)
            asking = mx.arange(window - 1, window + length - 1)[:, None]
            mask = (stored <= asking) & (stored > asking - window)
        out = mx.fast.scaled_dot_product_attention(
            self.q, self.keys, self.values, scale=0.1, mask=mask
        )
        if length > 1:
            self.keys, self.values = self.keys[:, :, -window:], self.values[:, :, -window:]
        mx.eval(out, self.keys, self.values)


def new_positions(case: Case, dtype: mx.Dtype) -> list[mx.array]:
    heads = (case.heads, case.kv_heads, case.kv_heads)
    qkv = [mx.random.normal((1, case.length, n, case.size)).astype(dtype) for n in heads]
    mx.eval(qkv)
    return qkv


BACKENDS: dict[str, Callable[[Case, mx.Dtype], Callable[[], None]]] = {
    "native": lambda case, dtype: Ring(case, dtype, native=True),
    "composed": lambda case, dtype: Ring(case, dtype, native=False),
    "peers": Peers,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_sliding_attention(benchmark, case, dtype, backend):
    mx.set_default_device(mx.cpu)
    benchmark.group = f"sliding_attention, {case}, {dtype}"
    benchmark.extra_info["backend"] = backend
    benchmark.extra_info["roofline"] = CASES[case].roofline(DTYPES[dtype])
    step = BACKENDS[backend](CASES[case], DTYPES[dtype])
    before = _ext.ring_copies()
    benchmark(step)
    assert _ext.ring_copies() == before  # written in place


STREAMS = 16
OF_STREAMS = {"numbers": Case(1, 4, 2, 64, 128), "decode-short": CASES["decode-short"]}


class Streams:
    """The rings of several streams, whose positions are computed by one op, or by one each."""

    def __init__(self, case: Case, dtype: mx.Dtype, native: bool, each: bool) -> None:
        self.case, self.native, self.each = case, native, each
        rows = [new_positions(case, dtype) for _ in range(STREAMS)]
        self.new = [mx.concatenate(parts, axis=1) for parts in zip(*rows, strict=True)]
        shape = (1, case.kv_heads, case.window, case.size)
        self.rings = [
            (mx.random.normal(shape).astype(dtype), mx.random.normal(shape).astype(dtype))
            for _ in range(STREAMS)
        ]
        mx.eval(self.new, self.rings)
        self.offset = case.window

    def __call__(self) -> None:
        with use_native(self.native):
            rings, self.rings = self.rings, []
            out, self.rings = self._one_each(rings) if self.each else self._one(rings)
            del rings
        self.offset += 1
        mx.eval(out, self.rings)

    def _one(self, rings):
        return sliding_attentions(
            *self.new,
            rings,
            [self.offset] * STREAMS,
            [1] * STREAMS,
            window=self.case.window,
            scale=0.1,
        )

    def _one_each(self, rings):
        parts = zip(*(mx.split(x, STREAMS, axis=1) for x in self.new), rings, strict=True)
        found = [
            sliding_attention(q, k, v, *ring, self.offset, window=self.case.window, scale=0.1)
            for q, k, v, ring in parts
        ]
        return mx.concatenate([out for out, *_ in found], axis=1), [
            (keys, values) for _, keys, values in found
        ]


STREAM_BACKENDS = {"native": (True, False), "each": (True, True), "composed": (False, False)}


@pytest.mark.parametrize("backend", STREAM_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OF_STREAMS)
def test_streams(benchmark, case, dtype, backend):
    mx.set_default_device(mx.cpu)
    benchmark.group = f"sliding_attentions, {STREAMS} streams, {case}, {dtype}"
    benchmark.extra_info["backend"] = backend
    benchmark.extra_info["roofline"] = STREAMS * OF_STREAMS[case].roofline(DTYPES[dtype])
    step = Streams(OF_STREAMS[case], DTYPES[dtype], *STREAM_BACKENDS[backend])
    before = _ext.ring_copies()
    benchmark(step)
    assert _ext.ring_copies() == before  # written in place
