"""Races sliding_attention against its composition, today's MLX backends, and the floor.

    python benches/bench_sliding_attention.py [--rounds 9] [--case decode ...]

All candidates take turns in one process, so ratios hold on a busy machine; times are the
medians and the minima over the rounds. Columns:

native      the kernels
composed    the same function composed of MLX's ops (``use_native(False)``)
peers       what MLX backends do: a slice update (one new row) or a concatenation and a
            banded mask (several), then ``mx.fast.scaled_dot_product_attention``
read        one read of as many bytes as the window's keys and values have, by the C
            library's memchr on all threads
gemm        the multiplications of the window at the rate of a float32 NumPy product
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from voxfast._native import _ext
from voxfast.ops import sliding_attention, use_native

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass(frozen=True)
class Case:
    """B = 1; L new rows, H query and H_kv KV heads of D, a window."""

    length: int
    heads: int
    kv_heads: int
    size: int
    window: int

    @property
    def multiplications(self) -> int:
        return 2 * self.length * self.heads * self.window * self.size


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
        self.new = new_rows(case, dtype)
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
        self.q, self.k, self.v = (x.swapaxes(1, 2) for x in new_rows(case, dtype))
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


def new_rows(case: Case, dtype: mx.Dtype) -> list[mx.array]:
    heads = (case.heads, case.kv_heads, case.kv_heads)
    rows = [mx.random.normal((1, case.length, n, case.size)).astype(dtype) for n in heads]
    mx.eval(rows)
    return rows


class Read:
    """One read of as many bytes, split between all threads."""

    def __init__(self, case: Case, dtype: mx.Dtype, pool: ThreadPoolExecutor) -> None:
        size = 2 * case.kv_heads * case.window * case.size * dtype.size
        self.pool, threads = pool, _ext.num_threads()
        self.parts = np.array_split(np.ones(size, np.uint8), threads)
        # Starting the threads must not count where the read is short.
        self.repeats = max(1, int(4e7 // size))
        self.memchr = ctypes.CDLL(None).memchr
        self.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        self.memchr.restype = ctypes.c_void_p

    def __call__(self) -> float:
        def read(part: np.ndarray) -> None:
            for _ in range(self.repeats):
                self.memchr(part.ctypes.data, 0, part.size)

        start = time.perf_counter()
        list(self.pool.map(read, self.parts))
        return (time.perf_counter() - start) / self.repeats


def gemm_rate() -> float:
    """Multiplications per second of a float32 product in NumPy."""
    a = np.ones((1024, 1024), np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 1024**3 / min(seconds)


def timed(step: Callable[[], float | None], repeats: int) -> float:
    """Seconds of one step; of its own account, if it gives one."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        own = step()
        seconds.append(own if own is not None else time.perf_counter() - start)
    return statistics.median(seconds)


def race(case: Case, dtype: mx.Dtype, rounds: int, pool: ThreadPoolExecutor) -> dict[str, list]:
    candidates: dict[str, Callable[[], float | None]] = {
        "native": Ring(case, dtype, native=True),
        "read": Read(case, dtype, pool),
        "peers": Peers(case, dtype),
        "composed": Ring(case, dtype, native=False),
    }
    repeats = {}
    for name, step in candidates.items():
        step()
        repeats[name] = max(1, min(50, int(0.02 / max(timed(step, 1), 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, step in candidates.items():
            found[name].append(timed(step, repeats[name]))
    return found


def report(name: str, dtype: str, found: dict[str, list], gemm: float, copies: int) -> None:
    middle = {key: statistics.median(values) for key, values in found.items()}
    least = {key: min(values) for key, values in found.items()}

    def ratio(a: str, b: str) -> str:
        return f"{middle[a] / middle[b]:6.1f} ({least[a] / least[b]:5.1f})"

    print(
        f"{name:13} {dtype:9}"
        + "".join(f"{middle[key] * 1e3:9.3f}" for key in ("native", "read", "peers", "composed"))
        + f"{gemm * 1e3:9.3f}"
        + f"   {ratio('peers', 'native')}  {ratio('composed', 'native')}"
        + f"  {ratio('native', 'read')}  {middle['native'] / gemm:5.1f}  {copies}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--dtype", nargs="*", choices=DTYPES, default=list(DTYPES))
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    rate = gemm_rate()
    print(f"{_ext.isa()}, {_ext.num_threads()} threads; NumPy multiplies at {rate / 1e9:.0f} G/s")
    print("milliseconds (medians); ratios of medians (of minima)")
    print(
        f"{'case':13} {'dtype':9}   native     read    peers composed     gemm"
        "   peers/native    composed/native native/read     native/gemm  ring copies"
    )
    with ThreadPoolExecutor(_ext.num_threads()) as pool:
        for name in options.case:
            for dtype in options.dtype:
                before = _ext.ring_copies()
                found = race(CASES[name], DTYPES[dtype], options.rounds, pool)
                gemm = CASES[name].multiplications / rate
                report(name, dtype, found, gemm, _ext.ring_copies() - before)


if __name__ == "__main__":
    main()
