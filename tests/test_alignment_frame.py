"""alignment_frame against float64 NumPy and against its composition.

Small integers are exact in every dtype and every order of summing, and tie often: on them
all must agree to the last position. Normal numbers may only differ where float64 scores do
by less than float32 resolves.
"""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import DTYPES, normal, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import run_sweep

from voxfast._native import _ext
from voxfast.ops import alignment_frame, use_native

pytestmark = pytest.mark.usefixtures("on_the_cpu")


# ---- the reference ----------------------------------------------------------------------


def head_scores(q: mx.array, k: mx.array, head: int, first: int, count: int) -> np.ndarray:
    """[B, L, count] products of one query head in float64."""
    group = q.shape[1] // k.shape[1]
    queries, keys = to_numpy(q)[:, head], to_numpy(k)[:, head // group, first : first + count]
    return np.einsum("bld,bsd->bls", queries, keys)


def reference(
    queries: Sequence[mx.array],
    keys: Sequence[mx.array],
    heads: Sequence[Sequence[int]],
    first: int,
    count: int,
) -> np.ndarray:
    """[B, L]; NumPy's argmax takes the first of equal scores."""
    frames = []
    for q, k, used in zip(queries, keys, heads, strict=True):
        for head in used:
            scores = head_scores(q, k, head, first, count)
            frames.append(np.where(np.isnan(scores), -np.inf, scores).argmax(axis=-1))
    return np.sort(np.stack(frames), axis=0)[len(frames) // 2]


def integers(rng: np.random.Generator, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    return mx.array(rng.integers(-2, 3, shape).astype(np.float32)).astype(dtype)


def check(*arguments: object) -> np.ndarray:
    """Native and composed on exact numbers: both are the reference."""
    expected = reference(*arguments)
    for native in (True, False):
        with use_native(native):
            found = alignment_frame(*arguments)
        assert found.dtype == mx.int32
        np.testing.assert_array_equal(np.array(found), expected)
    return expected


# ---- results ----------------------------------------------------------------------------

GROUPS = st.sampled_from([(1, 1), (2, 1), (4, 2), (16, 8), (7, 1), (9, 3), (20, 1)])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    layers=st.lists(GROUPS, min_size=1, max_size=5),
    size=st.sampled_from([1, 3, 16, 31, 64, 65, 128, 512]),
    length=st.sampled_from([1, 1, 1, 2, 5, 17]),
    count=st.sampled_from([1, 2, 3, 7, 8, 9, 31, 195, 401]),
    first=st.sampled_from([0, 1, 13]),
    spare=st.sampled_from([0, 1, 5]),
    batch=st.sampled_from([1, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 999),
)
def test_exact_numbers_give_the_reference(
    layers, size, length, count, first, spare, batch, dtype, seed
):
    rng = np.random.default_rng(seed)
    queries = [integers(rng, (batch, h, length, size), dtype) for h, _ in layers]
    keys = [integers(rng, (batch, kv, first + count + spare, size), dtype) for _, kv in layers]
    heads = [rng.permutation(h)[: rng.integers(1, h + 1)].tolist() for h, _ in layers]
    check(queries, keys, heads, first, count)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 64, 80, 128])
def test_normal_numbers_give_a_greatest_score(dtype, size, native):
    rng = np.random.default_rng(size)
    q, k = normal(rng, (2, 6, 3, size), dtype), normal(rng, (2, 3, 240, size), dtype)
    for head in range(6):
        with use_native(native):
            found = np.array(alignment_frame([q], [k], [[head]], 20, 195))
        scores = head_scores(q, k, head, 20, 195)
        chosen = np.take_along_axis(scores, found[..., None].astype(np.int64), -1)[..., 0]
        assert (scores.max(axis=-1) - chosen).max() < 1e-5 * size**0.5


def test_products_are_not_rounded_to_the_dtype():
    # 257 and 256 are one number in bfloat16; their products with 1 differ in float32.
    q = mx.ones((1, 1, 1, 2), mx.bfloat16)
    k = mx.array([[256.0, 0.0], [256.0, 1.0], [256.0, 0.5]], dtype=mx.bfloat16)[None, None]
    assert check([q], [k], [[0]], 0, 3).item() == 1


def test_the_median_is_the_upper_one_of_an_even_number():
    frames = [9, 2, 5, 7]  # of four heads, each with keys of its own
    k = mx.zeros((1, 4, 12, 8))
    for head, frame in enumerate(frames):
        k[0, head, frame] = 1.0
    q = mx.ones((1, 4, 1, 8))
    for used, median in (([0], 9), ([0, 1], 9), ([1, 2, 3], 5), ([0, 1, 2, 3], 7)):
        assert check([q], [k], [used], 0, 12).item() == median
    assert check([q, q], [k, k], [[0, 1], [1, 2, 3]], 0, 12).item() == 5
    assert check([q], [k], [[2]], 3, 6).item() == 2  # relative to the first


def test_of_equal_scores_the_first_wins():
    for count in (1, 4, 8, 9, 37):
        q, k = mx.ones((1, 2, 3, 32)), mx.ones((1, 1, count, 32))
        assert not check([q], [k], [[0, 1]], 0, count).any()


def test_the_keys_around_the_audio_do_not_count():
    rng = np.random.default_rng(3)
    q, k = integers(rng, (1, 4, 2, 64), mx.float32), integers(rng, (1, 2, 50, 64), mx.float32)
    k[:, :, :10] = k[:, :, 33:] = 1000.0 * mx.sign(q[:, ::2, :1])
    inside = check([q], [k], [[0, 1, 2, 3]], 10, 23)
    alone = alignment_frame([q], [k[:, :, 10:33]], [[0, 1, 2, 3]], 0, 23)
    np.testing.assert_array_equal(inside, np.array(alone))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [16, 17])
def test_numbers_that_are_none(bad, size):
    rng = np.random.default_rng(5)
    q, k = mx.ones((1, 2, 1, size)), integers(rng, (1, 2, 21, size), mx.float32)
    for place in (0, 7, 8, 20):
        poisoned = np.array(k)
        poisoned[0, 0, place] = bad
        check([q], [mx.array(poisoned)], [[0]], 0, 21)
        check([q], [mx.array(poisoned)], [[0, 1]], 0, 21)
    everywhere = mx.full((1, 2, 21, size), bad)
    assert check([q], [everywhere], [[0, 1]], 0, 21).item() == 0


# ---- layouts and the graph ----------------------------------------------------------------


def test_arrays_in_any_layout():
    rng = np.random.default_rng(6)
    q, k = integers(rng, (2, 4, 3, 64), mx.float16), integers(rng, (2, 2, 40, 64), mx.float16)
    heads = [[3, 0, 1]]
    expected = check([q], [k], heads, 5, 30)
    cache = mx.zeros((2, 2, 256, 64), mx.float16)
    cache[:, :, 7:47] = k
    ring = mx.concatenate([k, k], axis=1)
    other_layouts = [
        (mx.contiguous(q.swapaxes(1, 2)).swapaxes(1, 2), cache[:, :, 7:47]),
        (mx.contiguous(q.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0), ring[:, 2:]),
        (mx.repeat(q, 2, axis=3)[..., ::2], mx.repeat(k, 2, axis=3)[..., ::2]),
        (q[:, :, ::-1][:, :, ::-1], k[:, :, ::-1][:, :, ::-1]),
        (q, mx.contiguous(k.swapaxes(2, 3)).swapaxes(2, 3)),
    ]
    for queries, keys in other_layouts:
        np.testing.assert_array_equal(check([queries], [keys], heads, 5, 30), expected)
    one = mx.broadcast_to(k[:1, :1], (2, 2, 40, 64))
    check([q], [one], heads, 0, 40)


def test_layers_of_different_shapes():
    rng = np.random.default_rng(7)
    shapes = [(4, 2, 64, 50), (6, 3, 32, 41), (1, 1, 128, 60)]
    queries = [
        integers(rng, (2, h, 2, d), t) for (h, _, d, _), t in zip(shapes, DTYPES, strict=True)
    ]
    keys = [
        integers(rng, (2, kv, s, d), t) for (_, kv, d, s), t in zip(shapes, DTYPES, strict=True)
    ]
    check(queries, keys, [[1, 2], [0, 5, 3], [0]], 3, 38)


def test_keys_are_not_copied():
    k = mx.zeros((1, 8, 1 << 15, 128))  # 128 MB
    q = mx.ones((1, 8, 1, 128))
    view = k[:, :, 3:-3]
    mx.eval(k, q, view)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(alignment_frame([q], [view], [[0, 7]], 0, 9))
    assert mx.get_peak_memory() - before < 1 << 16


def test_lazy_and_compiled():
    rng = np.random.default_rng(8)
    q, k = integers(rng, (1, 4, 1, 64), mx.float32), integers(rng, (1, 4, 30, 64), mx.float32)

    def twice(q, k):
        return alignment_frame([q * 2], [k + 0], [[0, 3]], 4, 20) + 100

    expected = check([q], [k], [[0, 3]], 4, 20) + 100
    for function in (twice, mx.compile(twice)):
        np.testing.assert_array_equal(np.array(function(q, k)), expected)
    # Calls with other heads or positions are other nodes of the graph.
    both = mx.compile(
        lambda q, k: (
            alignment_frame([q], [k], [[0]], 0, 20),
            alignment_frame([q], [k], [[1]], 0, 20),
            alignment_frame([q], [k], [[1]], 0, 4),
            alignment_frame([q], [k], [[1]], 1, 20),
        )
    )
    for found, (head, first, count) in zip(
        both(q, k), [(0, 0, 20), (1, 0, 20), (1, 0, 4), (1, 1, 20)], strict=True
    ):
        np.testing.assert_array_equal(np.array(found), reference([q], [k], [[head]], first, count))


# ---- threads and instruction sets -----------------------------------------------------------


def sweep() -> None:
    """A quick check of all kernels; run in processes with other settings."""
    rng = np.random.default_rng(9)
    for heads, kv_heads, size in ((16, 8, 128), (7, 1, 64), (9, 3, 31), (1, 1, 200)):
        for dtype in DTYPES:
            for length in (1, 5):
                queries = [integers(rng, (2, heads, length, size), dtype) for _ in range(4)]
                keys = [integers(rng, (2, kv_heads, 420, size), dtype) for _ in range(4)]
                check(queries, keys, [[*range(heads)]] * 4, 7, 401)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("VOXFAST_ISA", isa) for isa in _ext.available_isas()] + [("VOXFAST_NUM_THREADS", "13")],
)
def test_every_instruction_set_and_any_number_of_threads(variable, value):
    assert value in run_sweep("test_alignment_frame", **{variable: value})


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": []}, "one entry per layer each; got 0, 1 and 1"),
        ({"heads": [[0], [1]]}, "one entry per layer each; got 1, 1 and 2"),
        ({"queries": [mx.zeros((1, 4, 1, 16), mx.int32)]}, "float32, float16 or bfloat16.*int32"),
        ({"keys": [mx.zeros((1, 2, 8, 16), mx.float16)]}, "both the same.*float16"),
        ({"queries": [mx.zeros((4, 1, 16))]}, r"queries must be \[B, H, L, D\].*\(4,1,16\)"),
        ({"queries": [mx.zeros((1, 4, 0, 16))]}, "not empty"),
        ({"queries": [mx.zeros((1, 4, 1, 513))]}, "D <= 512"),
        ({"keys": [mx.zeros((2, 8, 16))]}, r"keys must be \[B, H_kv, S, D\]"),
        ({"keys": [mx.zeros((2, 2, 8, 16))]}, "keys must be"),
        ({"keys": [mx.zeros((1, 2, 8, 32))]}, "keys must be"),
        ({"keys": [mx.zeros((1, 3, 8, 16))]}, "multiple of H_kv"),
        ({"keys": [mx.zeros((1, 0, 8, 16))]}, "multiple of H_kv"),
        ({"first": -1}, "got -1 and 8"),
        ({"count": 0}, "got 0 and 0"),
        ({"count": 9}, r"got 0 and 9.*\(1,2,8,16\)"),
        ({"first": 1}, "got 1 and 8"),
        ({"first": 2**31 - 1, "count": 2**31 - 1}, "got 2147483647 and 2147483647"),
        ({"heads": [[]]}, "at least one head"),
        ({"heads": [[0, 4]]}, r"head 4 .*\(1,4,1,16\)"),
        ({"heads": [[-1]]}, "head -1"),
        ({"heads": [[1, 2, 1]]}, "twice"),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_wrong_arguments_are_found_when_the_graph_is_built(changes, message, native):
    arguments = {
        "queries": [mx.zeros((1, 4, 1, 16))],
        "keys": [mx.zeros((1, 2, 8, 16))],
        "heads": [[0]],
        "first": 0,
        "count": 8,
        **changes,
    }
    with use_native(native), pytest.raises(ValueError, match=rf"^\[alignment_frame\].*{message}"):
        alignment_frame(**arguments)


def test_layers_must_agree_on_batch_and_length():
    queries = [mx.zeros((1, 4, 1, 16)), mx.zeros((1, 4, 2, 16))]
    with pytest.raises(ValueError, match=r"^\[alignment_frame\] B and L .*\(1,4,2,16\)"):
        alignment_frame(queries, [mx.zeros((1, 2, 8, 16))] * 2, [[0], [0]], 0, 8)
