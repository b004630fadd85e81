"""A row of sliding_attention gives the same bits however it is computed.

A row is one position of one sequence. Its bits may depend on its query and on the keys and
values that it sees, by position; not on the rows beside it, the batch, the ring or the threads.
"""

import mlx.core as mx
import numpy as np
import pytest
from attention_bits import Positions
from attention_reference import DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import run_sweep

from voxfast._native import _ext

pytestmark = pytest.mark.usefixtures("on_the_cpu")

SHAPES = st.fixed_dictionaries(
    {
        "heads": st.sampled_from([4, 8, 12]),
        "kv_heads": st.sampled_from([1, 2, 4]),
        "size": st.sampled_from([1, 31, 32, 40, 64, 80, 96, 128, 136, 256]),
        "window": st.sampled_from([1, 2, 3, 64, 257, 300, 750]),
        "dtype": st.sampled_from(DTYPES),
        "rotary": st.booleans(),
        "kv_bits": st.sampled_from([None, 8]),
    }
)
OFFSETS = st.one_of(st.integers(0, 2000), st.integers(2**31 - 9, 2**31 + 300))


def positions_of(shape: dict, offset: int, length: int, batch: int = 1, **options) -> Positions:
    """The positions that rows ``offset`` ... see."""
    if shape["size"] % 2:
        shape = {**shape, "rotary": False}
    first = max(0, offset - shape["window"] + 1)
    return Positions(**shape, first=first, n=offset + length - first, batch=batch, **options)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    shape=SHAPES,
    offset=OFFSETS,
    length=st.integers(1, 40),
    batch=st.sampled_from([1, 1, 2, 3, 4]),
    slack=st.sampled_from([0, 0, 1, 5, 64, 1000]),
)
def test_rows_beside_it_batch_and_ring_do_not_matter(shape, offset, length, batch, slack):
    positions = positions_of(shape, offset, length, batch)
    expected = positions.one_by_one(offset, length)
    np.testing.assert_array_equal(positions.rows(offset, length, slack), expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SHAPES, offset=OFFSETS, length=st.integers(2, 40), slack=st.integers(0, 70))
def test_without_causality_a_row_is_the_last_one_alone(shape, offset, length, slack):
    """Row i of a block sees what the block's last row sees."""
    positions = positions_of({**shape, "rotary": False}, offset, length, causal=False)
    together = positions.rows(offset, length, slack)
    last = offset + length - 1
    for i in range(length):
        positions.q[:, -1] = positions.q[:, i - length] if i < length - 1 else positions.q[:, -1]
        alone = positions.rows(last, 1)
        if i < length - 1:
            np.testing.assert_array_equal(together[:, i], alone[:, 0])


def test_zeros_have_the_same_sign():
    """A sum that underflowed to -0 and the masked key of the next row, which adds +0."""
    positions = Positions(1, 1, 64, 400, mx.float32, 0, 322)
    score = np.repeat([0, 100, 200], [256, 64, 2])  # a split, a block, the two new rows
    value = np.where(np.arange(322) < 320, np.float32(-1e-30), np.float32(-0.0))
    value[321] = 1
    axis = mx.array(np.eye(64, dtype=np.float32)[0])
    positions.q = mx.broadcast_to(axis, positions.q.shape)
    positions.k = positions.stored_k = mx.array(8.0 * score[None, :, None, None], mx.float32) * axis
    positions.v = mx.broadcast_to(mx.array(value[None, :, None, None]), positions.v.shape)
    positions.stored_v = positions.v
    np.testing.assert_array_equal(positions.rows(320, 2), positions.one_by_one(320, 2))


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_every_instruction_set_and_number_of_threads(isa, tmp_path):
    digests = set()
    for threads in ("1", "2", "3", "4", "8", "16"):
        path = tmp_path / threads
        used = run_sweep(
            "attention_bits", VOXFAST_ISA=isa, VOXFAST_NUM_THREADS=threads, DIGEST=str(path)
        )
        assert used == (isa, threads)
        digests.add(path.read_text())
    assert len(digests) == 1
