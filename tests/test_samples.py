"""The queue gives out exactly what was put in, in order, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfast.online.stream import SampleQueue


@given(st.lists(st.integers(0, 50), max_size=30), st.lists(st.integers(0, 70), max_size=30))
def test_first_in_first_out(puts: list[int], takes: list[int]) -> None:
    queue, total, taken = SampleQueue(), 0, 0
    for size in puts:
        queue.put(np.arange(total, total + size, dtype=np.float32))
        total += size
    for size in takes:
        if size > total - taken:
            with pytest.raises(IndexError):
                queue.take(size)
            continue
        got = queue.take(size)
        assert got.dtype == np.float32
        assert got.tolist() == list(range(taken, taken + size))
        taken += size
        assert len(queue) == total - taken


def test_nothing_taken_is_kept() -> None:
    queue = SampleQueue()
    for _ in range(100):
        queue.put(np.zeros(1000, np.float32))
        queue.take(1000)
    assert len(queue._chunks) == 0
