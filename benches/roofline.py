"""Rooflines of this machine: the rates of reading memory and of multiplying."""

import ctypes
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from voxfast._native import _ext

__all__ = ["product_rate", "read_seconds"]


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
