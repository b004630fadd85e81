"""Rooflines of this machine: the rates of reading memory and of multiplying."""

import ctypes
import platform
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np

from voxfast._native import _ext

__all__ = ["peak_rate", "product_rate", "products_per_float", "read_seconds"]

# Independent sums, enough to keep every FMA unit busy, as many as the registers hold.
FMA_LOOP = r"""
#if defined(__AVX512F__)
enum { WIDTH = 64, SUMS = 24 };
#elif defined(__x86_64__)
enum { WIDTH = 32, SUMS = 12 };
#else
enum { WIDTH = 16, SUMS = 24 };
#endif
typedef float vector __attribute__((vector_size(WIDTH)));
/* Returns how many products it has computed. */
long fma_loop(long rounds, float factor, float* out) {
  vector sums[SUMS] = {}, x = (vector){} + factor;
  for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < SUMS; ++j) {
      sums[j] = sums[j] * x + x;
      __asm__("" : "+REGISTER"(sums[j]));
    }
  }
#pragma GCC unroll 24
  for (int j = 0; j < SUMS; ++j) {
    *out += sums[j][0];
  }
  return rounds * SUMS * (WIDTH / 4);
}
"""


def read_seconds(n_bytes: int) -> float:
    """Time of one read of so many bytes by the C library's memchr, on all threads."""
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    memchr.restype = ctypes.c_void_p
    parts = np.array_split(np.ones(n_bytes, np.uint8), _ext.num_threads())
    repeats = max(1, int(4e7 // n_bytes))  # starting the threads must not count

    def read(part: np.ndarray) -> None:
        for _ in range(repeats):
            memchr(part.ctypes.data, 0, part.size)

    seconds = []
    with ThreadPoolExecutor(len(parts)) as pool:
        for _ in range(9):
            start = time.perf_counter()
            list(pool.map(read, parts))
            seconds.append((time.perf_counter() - start) / repeats)
    return statistics.median(seconds)


def product_rate(dtype: type[np.floating] = np.float32, size: int = 1024) -> float:
    """Multiplications per second of a square matrix product in NumPy."""
    a = np.ones((size, size), dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def peak_rate() -> float:
    """Multiplications of float32 per second on all threads, at most: FMAs in registers.

    The loop is compiled here, with the C compiler that voxfast itself needs.
    """
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    code = FMA_LOOP.replace("REGISTER", "v" if is_x86 else "w")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text(code)
        target = "-march=native" if is_x86 else "-mcpu=native"
        options = ["-O3", target, "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run(["cc", *options, str(source), "-o", str(library)], check=True)
        loop = ctypes.CDLL(str(library)).fma_loop
    loop.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.POINTER(ctypes.c_float)]
    loop.restype = ctypes.c_long

    def rate(_: int) -> float:
        found = 0.0
        for _ in range(40):
            start = time.perf_counter()
            products = loop(20_000, 0.5, ctypes.byref(ctypes.c_float()))
            found = max(found, products / (time.perf_counter() - start))
        return found

    threads = _ext.num_threads()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, range(threads)))


def products_per_float(form: mx.Dtype | int) -> int:
    """Products of an instruction, in units of what one multiplies in float32.

    ``form`` is the dtype of the weights, or their bits. Packed weights are dot products of bytes
    (four times as many, but x has two digits) or pairs (madd); some processors multiply pairs of
    bfloat16. Instructions of all these kinds issue equally often.
    """
    has_pairs = form == mx.bfloat16 and _ext.isa() in ("avx512dot", "neonmm")
    return 2 if isinstance(form, int) or has_pairs else 1
