"""linear: the kernels against their composition, NumPy, and the roofline.

    pytest benches/bench_linear.py --benchmark-enable

"native" are the kernels, "composed" is MLX's own product (``use_native(False)``), "numpy" the
float32 product of the weights, unpacked beforehand. The roofline is one read of the weights by all
threads or, where that takes longer, the multiplications at the rate of a float32 product in
NumPy. Activations are bfloat16. Few rows take weights of a vocabulary's size, larger than any
cache; 104 rows are those of a window of the audio tower.

linears: what the layers of Qwen3-ASR 0.6B multiply by one input, as one op ("native") and as one
op for each ("separate"). One call takes all 28 layers, so that weights come from memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest
from roofline import product_rate, read_seconds

from voxfast.ops import LinearWeights, linear, linears, use_native

FORMATS: dict[str, mx.Dtype | int] = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
    **{f"{bits} bit": bits for bits in (8, 6, 5, 4, 3, 2)},
}
GROUP_SIZE = 64


@dataclass(frozen=True)
class Shape:
    """M rows, N outputs, K inputs."""

    m: int
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.m} x {self.k} x {self.n}"


SHAPES = [
    Shape(1, 131072, 2048),
    Shape(4, 131072, 2048),
    Shape(24, 1024, 3072),
    Shape(104, 3072, 1024),
]


def roofline_of(weights: list[mx.array], multiplications: int) -> float:
    """Seconds that it takes at the least to read the weights and to multiply so often."""
    n_bytes = sum(array.nbytes for array in weights)
    return max(read_seconds(n_bytes), multiplications / product_rate())


class Product:
    """One product, and its operands for every backend."""

    def __init__(self, shape: Shape, name: str) -> None:
        self.shape, form = shape, FORMATS[name]
        self.x = mx.random.normal((shape.m, shape.k)).astype(mx.bfloat16)
        self.options = {}
        if isinstance(form, mx.Dtype):
            self.arrays = [mx.random.normal((shape.n, shape.k)).astype(form)]
        else:
            self.arrays = packed(shape.n, shape.k, form)
            self.options = {"group_size": GROUP_SIZE, "bits": form}
        mx.eval(self.x, self.arrays)

    @property
    def roofline(self) -> float:
        """Seconds that it takes at the least."""
        shape = self.shape
        return roofline_of(self.arrays, shape.m * shape.n * shape.k)

    def native(self) -> None:
        mx.eval(linear(self.x, *self.arrays, **self.options))

    def composed(self) -> None:
        with use_native(False):
            y = linear(self.x, *self.arrays, **self.options)
        mx.eval(y)

    def numpy(self) -> Callable[[], object]:
        x = np.array(self.x.astype(mx.float32))
        w = np.random.default_rng(0).standard_normal((self.shape.n, self.shape.k), np.float32)
        return lambda: x @ w.T


class Layers:
    """Products of one input, in as many layers as Qwen3-ASR 0.6B has."""

    COUNT = 28

    def __init__(self, m: int, outputs: tuple[int, ...], k: int, name: str) -> None:
        products = [Product(Shape(m, n, k), name) for n in outputs]
        self.x = products[0].x
        self.options = products[0].options
        self.layers = [
            [[array + 0 for array in product.arrays] for product in products]
            for _ in range(self.COUNT)
        ]
        arrays = [array for layer in self.layers for some in layer for array in some]
        mx.eval(arrays)
        self.roofline = roofline_of(arrays, self.COUNT * m * sum(outputs) * k)

    def native(self) -> None:
        weights = [
            [LinearWeights(*arrays, **self.options) for arrays in layer] for layer in self.layers
        ]
        mx.eval([linears(self.x, layer) for layer in weights])

    def separate(self) -> None:
        mx.eval(
            [[linear(self.x, *arrays, **self.options) for arrays in layer] for layer in self.layers]
        )


def packed(n: int, k: int, bits: int) -> list[mx.array]:
    """Random codes, scales and biases."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**32, (n, k * bits // 32), dtype=np.uint32)
    groups = [mx.random.normal((n, k // GROUP_SIZE)).astype(mx.bfloat16) for _ in range(2)]
    return [mx.array(codes), *groups]


@pytest.mark.parametrize("backend", ["native", "composed", "numpy"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear(benchmark, shape, name, backend):
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    product = Product(shape, name)
    benchmark.group = f"linear, {shape}, {name}"
    benchmark.extra_info["backend"] = backend
    if backend == "native":
        benchmark.extra_info["roofline"] = product.roofline
    if backend == "composed":  # seconds, in half precision
        benchmark.pedantic(product.composed, rounds=1)
    else:
        benchmark(product.native if backend == "native" else product.numpy())
    mx.set_default_device(before)


@pytest.mark.parametrize("backend", ["native", "separate"])
@pytest.mark.parametrize("name", ["bfloat16", "8 bit", "4 bit"])
@pytest.mark.parametrize("outputs", [(2048, 1024, 1024), (3072, 3072)], ids=["q, k, v", "gate, up"])
@pytest.mark.parametrize("m", [1, 104])
def test_linears(benchmark, m, outputs, name, backend):
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    layers = Layers(m, outputs, 1024, name)
    benchmark.group = f"linears, {m} x 1024 x {outputs}, {name}"
    benchmark.extra_info["backend"] = backend
    if backend == "native":
        benchmark.extra_info["roofline"] = layers.roofline
    benchmark(layers.native if backend == "native" else layers.separate)
    mx.set_default_device(before)
