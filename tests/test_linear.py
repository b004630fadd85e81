"""linear against float64 NumPy and against its composition."""

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_reference import (
    DTYPES,
    Weights,
    check,
    float_weights,
    formats,
    normal,
    packed_weights,
    to_numpy,
)
from mlx.utils import tree_flatten
from sweeps import run_sweep

from voxfast._native import _ext
from voxfast.models.values import BITS, GROUP_SIZES
from voxfast.nn import linears as together
from voxfast.nn import serve_layers
from voxfast.ops import LinearWeights, linear, linears, use_native

SIZES = st.one_of(st.integers(1, 40), st.sampled_from([61, 97, 128, 151, 257]))
ROWS = st.one_of(st.integers(1, 9), st.sampled_from([13, 31, 67, 130, 200]))

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def call(x: mx.array, w: Weights, bias: mx.array | None = None, **options) -> mx.array:
    return linear(x, *w.arrays, bias=bias, **w.options, **options)


# ---- results --------------------------------------------------------------------------


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    m=ROWS,
    n=SIZES,
    k=st.one_of(st.integers(1, 70), st.sampled_from([127, 1021, 1024, 1031, 2049, 3072])),
    x_dtype=st.sampled_from(DTYPES),
    w_dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
    out_dtype=st.sampled_from([None, *DTYPES]),
)
def test_float_weights(m, n, k, x_dtype, w_dtype, with_bias, out_dtype):
    rng = np.random.default_rng(m * n + k)
    x, w = normal(rng, (m, k), x_dtype), float_weights(rng, n, k, w_dtype)
    bias = normal(rng, (n,), w_dtype) if with_bias else None
    found = call(x, w, bias, out_dtype=out_dtype)
    assert found.dtype == (out_dtype or (x_dtype if x_dtype == w_dtype else mx.float32))
    check(found, x, w, bias)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    m=ROWS,
    n=SIZES,
    groups=st.one_of(st.integers(1, 5), st.sampled_from([8, 11, 17, 37])),
    bits=st.sampled_from(BITS),
    group_size=st.sampled_from(GROUP_SIZES),
    x_dtype=st.sampled_from(DTYPES),
    scale_dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
)
def test_packed_weights(m, n, groups, bits, group_size, x_dtype, scale_dtype, with_bias):
    rng = np.random.default_rng(m * n + groups)
    k = groups * group_size
    x = normal(rng, (m, k), x_dtype)
    w = packed_weights(rng, n, k, bits, group_size, scale_dtype)
    bias = normal(rng, (n,), mx.float32) if with_bias else None
    check(call(x, w, bias, out_dtype=mx.float32), x, w, bias)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_every_code_of_every_place(bits, group_size):
    """The identity brings out each weight; 16 bits hold 1 and 0 as they are."""
    rng = np.random.default_rng(bits)
    w = packed_weights(rng, 19, 2 * group_size, bits, group_size, mx.float32)
    found = call(mx.eye(2 * group_size), w)
    np.testing.assert_allclose(np.array(found).T, w.values, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("bits", BITS)
def test_weights_that_mlx_packed(bits):
    dense = mx.random.normal((40, 256), key=mx.random.key(1))
    arrays = mx.quantize(dense, group_size=64, bits=bits)
    values = to_numpy(mx.dequantize(*arrays, group_size=64, bits=bits))
    w = Weights(tuple(arrays), {"group_size": 64, "bits": bits}, values)
    x = mx.random.normal((9, 256), key=mx.random.key(2))
    check(call(x, w), x, w)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 3, 100_003), (2, 100_003, 5), (5001, 3, 70)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_sizes(m, n, k, dtype):
    rng = np.random.default_rng(3)
    x, w = normal(rng, (m, k), dtype), float_weights(rng, n, k, dtype)
    check(call(x, w), x, w)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 3, 131_072), (3, 50_021, 32), (3001, 5, 96)])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_huge_packed_sizes(m, n, k, bits):
    rng = np.random.default_rng(3)
    x, w = normal(rng, (m, k), mx.bfloat16), packed_weights(rng, n, k, bits, 32, mx.bfloat16)
    check(call(x, w), x, w)


def test_native_equals_composed():
    rng = np.random.default_rng(4)
    for w in formats(rng, 37, 256):
        for m in (1, 33):
            dtype = w.arrays[-1].dtype
            x, bias = normal(rng, (m, 256), dtype), normal(rng, (37,), dtype)
            native = call(x, w, bias)
            with use_native(False):
                composed = call(x, w, bias)
            assert native.dtype == composed.dtype
            # MLX accumulates packed products of half precision in half precision.
            tolerance = {mx.float32: 1e-4, mx.float16: 2e-2, mx.bfloat16: 2e-1}[dtype]
            size = np.abs(to_numpy(composed)).max()
            assert np.abs(to_numpy(native) - to_numpy(composed)).max() < tolerance * size


# ---- rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("x_dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(x_dtype):
    rng = np.random.default_rng(5)
    for n, k in ((45, 1280), (7, 2176)):
        for w in formats(rng, n, k):
            x = normal(rng, (135, k), x_dtype)
            together = call(x, w)
            for first, last in ((0, 1), (1, 3), (3, 6), (6, 10), (10, 15), (15, 39), (39, 134)):
                assert mx.array_equal(call(x[first:last], w), together[first:last])


@pytest.mark.parametrize("n", [5, 37])
@pytest.mark.parametrize("groups", [9, 37])
def test_any_number_of_rows_gives_the_bits_of_one(n, groups):
    """1 to 26 rows, over every crossing from one kernel to another, in every format."""
    rng = np.random.default_rng(n + groups)
    for i, group_size in enumerate(GROUP_SIZES):
        k = groups * group_size  # of the last groups too few for a vector
        for j, w in enumerate(formats(rng, n, k)):
            x = normal(rng, (26, k), DTYPES[(i + j) % 3])
            alone = mx.concatenate([call(x[m : m + 1], w) for m in range(26)])
            for m in range(2, 27):
                assert mx.array_equal(call(x[:m], w), alone[:m]), (w.options, m)


def test_batches_are_rows():
    rng = np.random.default_rng(6)
    for w in formats(rng, 12, 128):
        x = normal(rng, (2, 3, 5, 128), mx.float32)
        flat = call(x.reshape(30, 128), w)
        assert mx.array_equal(call(x, w).reshape(30, 12), flat)
        assert mx.array_equal(call(x[1, 2, 4], w), flat[29])
        assert call(x[:0], w).shape == (0, 3, 5, 12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_stay_in_their_row(bad):
    rng = np.random.default_rng(7)
    for w in formats(rng, 20, 256):
        for m in (3, 40):
            x = normal(rng, (m, 256), mx.float32)
            clean = call(x, w)
            poisoned = np.array(x)
            poisoned[1, 200] = bad
            found = call(mx.array(poisoned), w)
            assert not np.isfinite(np.array(found)[1]).any()
            assert mx.array_equal(found[2:], clean[2:])
            assert mx.array_equal(found[0], clean[0])


def test_tiny_and_large_numbers():
    rng = np.random.default_rng(8)
    for w in formats(rng, 9, 128):
        for factor in (0.0, 1e-42, 1e-30, 1e30):
            x = normal(rng, (6, 128), mx.float32) * factor
            found, reference = np.array(call(x, w), np.float64), to_numpy(x) @ w.values.T
            assert np.abs(found - reference).max() <= 1e-4 * np.abs(reference).max() + 1e-36


def test_sums_of_half_precision_do_not_overflow():
    x = mx.full((2, 1024), 100.0, dtype=mx.float16)
    w = mx.concatenate([mx.full((3, 512), v, dtype=mx.float16) for v in (8.0, -8.0)], axis=1)
    assert mx.array_equal(linear(x, w), mx.zeros((2, 3), dtype=mx.float16))
    packed = mx.quantize(w.astype(mx.float32), group_size=64, bits=4)
    assert float(mx.abs(linear(x, *packed)).max()) < 30


# ---- several at once ------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 3, 40])
@pytest.mark.parametrize("native", [True, False])
def test_several_products_of_one_x(m, native):
    """Of any formats and sizes, in any order; x may have to be prepared anew in between."""
    rng = np.random.default_rng(m)
    x = normal(rng, (2, m, 256), mx.bfloat16)
    some = [w for n in (5, 1, 97) for w in formats(rng, n, 256)]
    biases = [normal(rng, (len(w.arrays[0]),), mx.float32) if i % 3 else None
              for i, w in enumerate(some)]  # fmt: skip
    order = [int(i) for i in rng.permutation(len(some))]
    with use_native(native):
        found = linears(
            x,
            [
                LinearWeights(*(*some[i].arrays, None, None)[:3], biases[i], **some[i].options)
                for i in order
            ],
        )
        for i, y in zip(order, found, strict=True):
            expected = call(x, some[i], biases[i])
            assert y.dtype == expected.dtype
            assert mx.array_equal(y, expected)


def test_results_that_nobody_wants():
    rng = np.random.default_rng(1)
    x, w = normal(rng, (1, 2048), mx.float32), float_weights(rng, 300, 2048, mx.float32)
    weights = [LinearWeights(w.arrays[0])] * 3
    for i in range(3):
        assert mx.array_equal(linears(x, weights)[i], call(x, w))
    step = mx.compile(lambda x: linears(x * 2, weights)[1])
    np.testing.assert_allclose(np.array(step(x)), np.array(call(x * 2, w)), rtol=1e-6)


def test_layers_together():
    layers = [nn.Linear(64, 8), nn.Linear(64, 3, bias=False), nn.QuantizedLinear(64, 5)]
    x = mx.random.normal((4, 64))
    expected = [layer(x) for layer in layers]
    for served in (False, True):
        for layer in layers if served else []:
            serve_layers(layer)
        for y, truth in zip(together(x, *layers), expected, strict=True):
            np.testing.assert_allclose(np.array(y), np.array(truth), rtol=1e-3, atol=1e-3)


# ---- layouts --------------------------------------------------------------------------


def layouts(x: mx.array) -> list[mx.array]:
    """Equal matrices that lie differently in memory."""
    rows, columns = x.shape
    wide = mx.zeros((rows + 3, columns + 5), x.dtype)
    wide[1 : 1 + rows, 2 : 2 + columns] = x
    return [
        x,
        mx.contiguous(x.T).T,
        mx.repeat(x, 2, axis=1)[:, ::2],
        mx.repeat(x, 3, axis=0)[::3],
        mx.contiguous(x[::-1])[::-1],
        wide[1 : 1 + rows, 2 : 2 + columns],
    ]


def test_any_layout():
    rng = np.random.default_rng(9)
    for w in formats(rng, 10, 128):
        for m in (1, 7):
            x, bias = normal(rng, (m, 128), mx.float32), normal(rng, (10,), mx.float32)
            expected = call(x, w, bias)
            mx.eval(expected)
            for i, xs in enumerate(layouts(x)):
                arrays = tuple(layouts(array)[i] for array in w.arrays)
                turned = Weights(arrays, w.options, w.values)
                assert mx.array_equal(call(xs, turned, layouts(bias[None])[i][0]), expected)


def test_rows_that_overlap():
    """The convolutions multiply windows of neighbouring frames."""
    rng = np.random.default_rng(10)
    frames, w = normal(rng, (1, 21, 8), mx.float32), float_weights(rng, 5, 24, mx.float32)
    windows = mx.as_strided(frames, (1, 10, 24), (21 * 8, 16, 1))
    check(call(windows, w), windows, w)


@pytest.mark.parametrize(("m", "channels"), [(3, 1), (5, 7), (13, 64), (2, 500)])
def test_several_input_dimensions(m, channels):
    """Patches of an image as a convolution meets them: rows of pieces that lie apart."""
    for dtype in DTYPES:
        rng = np.random.default_rng(channels)
        image = normal(rng, (m + 2, 6, channels), dtype)
        row = 6 * channels
        patches = mx.as_strided(image, (m, 4, 3, 3 * channels), (row, channels, row, 1))
        w = float_weights(rng, 11, 9 * channels, dtype)
        flat = patches.reshape(m, 4, -1)
        found = linear(patches, w.arrays[0].reshape(11, 3, -1))
        assert mx.array_equal(found, call(flat, w))
        for turned in (patches[..., ::-1, :], patches[..., ::-1], patches.swapaxes(-1, -2)):
            shape = turned.shape[-2:]
            expected = call(mx.contiguous(turned).reshape(m, 4, -1), w)
            assert mx.array_equal(linear(turned, w.arrays[0].reshape(11, *shape)), expected)
        with use_native(False):
            composed = linear(patches, w.arrays[0].reshape(11, 3, -1))
            assert composed.shape == found.shape
            assert mx.array_equal(composed, call(flat, w))


def test_one_row_stands_for_many():
    rng = np.random.default_rng(11)
    x = mx.broadcast_to(normal(rng, (1, 96), mx.float32), (6, 96))
    for w in formats(rng, 11, 96):
        check(call(x, w), x, w)


# ---- with the rest of MLX -------------------------------------------------------------


def test_compiled():
    rng = np.random.default_rng(12)
    for w in formats(rng, 16, 64):
        x = normal(rng, (3, 64), mx.float32)
        step = mx.compile(lambda x, w=w: call(x * 2, w) + 1)
        np.testing.assert_allclose(np.array(step(x)), np.array(call(x * 2, w) + 1), rtol=1e-6)


def test_served_layers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(50, 64)
            self.first = nn.Linear(64, 96)
            self.norm = nn.RMSNorm(96)
            self.second = nn.Linear(96, 64, bias=False)

        def __call__(self, tokens):
            x = self.second(self.norm(self.first(self.embed(tokens))))
            return self.embed.as_linear(x)

    for bits in (None, 4):
        model = Model()
        if bits:
            nn.quantize(model, group_size=32, bits=bits)
        tokens = mx.array([[3, 49, 0]])
        before = model(tokens)
        names = sorted(name for name, _ in tree_flatten(model.parameters()))
        serve_layers(model)
        assert sorted(name for name, _ in tree_flatten(model.parameters())) == names
        np.testing.assert_allclose(np.array(model(tokens)), np.array(before), rtol=1e-3, atol=1e-3)


# ---- threads and instruction sets -----------------------------------------------------


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_every_instruction_set(isa):
    assert run_sweep("linear_reference", VOXFAST_ISA=isa)[0] == isa


@pytest.mark.parametrize("threads", ["1", "13"])
def test_any_number_of_threads(threads):
    assert run_sweep("linear_reference", VOXFAST_NUM_THREADS=threads)[1] == threads


def test_many_threads_may_call_at_once():
    rng = np.random.default_rng(13)
    w = packed_weights(rng, 3000, 1024, 4, 64, mx.float32)
    x = normal(rng, (4, 1024), mx.float32)
    expected = call(x, w)
    mx.eval(x, w.arrays, expected)
    found = []

    def work():
        with mx.stream(mx.new_stream(mx.cpu)):
            for _ in range(5):
                found.append(bool(mx.array_equal(call(x, w), expected)))
        mx.clear_streams()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 20


# ---- what is refused ------------------------------------------------------------------

X = mx.zeros((2, 128))
PACKED = {
    "w": mx.zeros((8, 16), mx.uint32),
    "scales": mx.zeros((8, 2)),
    "biases": mx.zeros((8, 2)),
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": mx.zeros((2, 128), mx.int32), "w": mx.zeros((8, 128))}, "x must be float32"),
        ({"x": mx.array(1.0), "w": mx.zeros((8, 1))}, r"x must be \[..., K\]"),
        ({"x": mx.zeros((2, 0)), "w": mx.zeros((8, 0))}, "K > 0"),
        ({"w": mx.zeros((8, 127))}, r"same last dimensions.*\(2,128\).*\(8,127\)"),
        ({"x": mx.zeros((2, 3, 8)), "w": mx.zeros((5, 2, 8))}, "same last dimensions"),
        ({"x": mx.zeros((0, 8)), "w": mx.zeros((5, 0, 8))}, "K > 0"),
        ({**PACKED, "w": mx.zeros((8, 2, 8), mx.uint32)}, r"w must be \[N, K\]"),
        ({"w": mx.zeros((128,))}, r"w must be \[N, K\]"),
        ({"w": mx.zeros((0, 128))}, "N > 0"),
        ({"w": mx.zeros((8, 128), mx.int8)}, "w must be float32"),
        ({"w": mx.zeros((8, 16), mx.uint32)}, "need scales and biases"),
        ({"w": mx.zeros((8, 128)), "bias": mx.zeros(7)}, r"bias must be \[N\]"),
        ({"w": mx.zeros((8, 128)), "bias": mx.zeros(8, mx.int32)}, "bias must be float32"),
        ({"w": mx.zeros((8, 128)), "out_dtype": mx.int32}, "out_dtype must be"),
        ({**PACKED, "bits": 7}, "bits must be 2, 3, 4, 5, 6 or 8; got 7"),
        ({**PACKED, "group_size": 16}, "group_size must be 32, 64 or 128; got 16"),
        ({**PACKED, "bits": 8}, r"K \* bits / 32.*8 bits"),
        ({**PACKED, "group_size": 32}, "scales must be"),
        ({**PACKED, "biases": None}, "together"),
        ({**PACKED, "biases": mx.zeros((8, 2), mx.float16)}, "one dtype"),
        ({**PACKED, "scales": mx.zeros((8, 2), mx.int8)}, "scales must be float32"),
        ({**PACKED, "x": mx.zeros((2, 100))}, "multiple of group_size"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        linear(**{"x": X, **arguments})
    assert str(caught.value).startswith("[linear]")


def test_weights_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"^\[linear\] there are no weights"):
        linears(X, [])
    flat, patches = mx.zeros((8, 128)), mx.zeros((8, 2, 128))
    with pytest.raises(ValueError, match=r"same number of dimensions.*\(8,128\).*\(8,2,128\)"):
        linears(X, [LinearWeights(flat), LinearWeights(patches)])
    with pytest.raises(ValueError, match=r"same last dimensions.*\(8,127\)"):
        linears(X, [LinearWeights(flat), LinearWeights(mx.zeros((8, 127)))])
