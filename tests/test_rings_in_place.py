"""sliding_attention writes its rings in place, and never into what somebody else holds."""

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import inputs

from voxfast._native import _ext
from voxfast.ops import sliding_attention

pytestmark = pytest.mark.usefixtures("on_the_cpu")


class Rings:
    """A caller that keeps the rings only, as a cache does."""

    def __init__(self, dtype=mx.float32, function=sliding_attention):
        x = inputs(4, 2, size=64, capacity=600, dtype=dtype)
        self.new = {name: x[name] for name in ("q", "k", "v")}
        self.rings = (x["keys"], x["values"])
        mx.eval(self.new, self.rings)
        self.function = function
        self.offset = 0

    def step(self, q=None):
        new = self.new if q is None else {**self.new, "q": q}
        offset = mx.array([self.offset], dtype=mx.int64)
        out, *self.rings = self.function(
            *new.values(), *self.rings, offset, window=500, scale=0.125
        )
        self.offset += 1
        return out


def eager(rings):
    for _ in range(200):
        out = rings.step()
        mx.eval(out, rings.rings)


def eager_output_only(rings):
    for _ in range(200):
        mx.eval(rings.step())


def eager_rings_only(rings):
    for _ in range(200):
        rings.step()
        mx.eval(rings.rings)


def chained_by_the_rings(rings):
    for _ in range(20):
        outs = [rings.step() for _ in range(4)]
        mx.eval(outs, rings.rings)


def chained_by_the_output(rings):
    for _ in range(20):
        out = rings.new["q"]
        for _ in range(4):
            out = rings.step(out)
        mx.eval(out)


def asynchronous(rings):
    out = rings.new["q"]
    for _ in range(200):
        out = rings.step(out)
        mx.async_eval(out)
    mx.eval(out)


@pytest.mark.parametrize(
    "use",
    [
        eager,
        eager_output_only,
        eager_rings_only,
        chained_by_the_rings,
        chained_by_the_output,
        asynchronous,
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_rings_are_written_in_place(use, compiled):
    function = sliding_attention
    if compiled:
        graph = mx.compile(lambda *arrays: sliding_attention(*arrays, window=500, scale=0.125))

        def function(*arrays, window, scale):
            return graph(*arrays)

    rings = Rings(function=function)
    before = _ext.ring_copies()
    use(rings)
    assert _ext.ring_copies() == before


def test_a_ring_that_is_still_held_is_left_alone():
    rings = Rings()
    for _ in range(3):
        held = tuple(rings.rings)
        contents = [np.array(ring) for ring in held]
        before = _ext.ring_copies()
        out = rings.step()
        mx.eval(out, rings.rings)
        assert _ext.ring_copies() == before + 2
        for ring, content in zip(held, contents, strict=True):
            np.testing.assert_array_equal(np.array(ring), content)
        assert not mx.array_equal(held[0], rings.rings[0])
        del held
        before = _ext.ring_copies()
        mx.eval(rings.step())
        assert _ext.ring_copies() == before


def test_a_view_of_a_ring_is_left_alone():
    rings = Rings()
    mx.eval(rings.step())
    view = rings.rings[0][:, 1]
    mx.eval(view)
    content, before = np.array(view), _ext.ring_copies()
    mx.eval([rings.step() for _ in range(3)])
    assert _ext.ring_copies() == before + 1  # the keys, once
    np.testing.assert_array_equal(np.array(view), content)


def test_one_ring_for_both_is_not_written_twice():
    x = inputs()
    x["values"] = x["keys"]
    out, keys, values = sliding_attention(**x, offset=2, window=4, scale=1.0)
    mx.eval(out, keys, values)
    assert mx.array_equal(keys[:, :, 2], x["k"][:, 0])
    assert mx.array_equal(values[:, :, 2], x["v"][:, 0])


def test_nothing_is_released_while_a_transformation_traces():
    x = inputs()

    def loss(q):
        out, keys, _ = sliding_attention(**{**x, "q": q}, offset=2, window=4, scale=1.0)
        return mx.sum(out) + mx.sum(keys)

    with pytest.raises(ValueError, match=r"(?i)not implemented"):
        mx.grad(loss)(x["q"])
    assert mx.isfinite(loss(x["q"]))
