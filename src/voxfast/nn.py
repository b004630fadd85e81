"""Matrix products of a loaded model on voxfast's own kernels.

MLX's CPU build for Linux multiplies with a reference BLAS, and half precision and packed
weights with scalar code. :func:`serve_linears` lets every linear layer and tied embedding of a
module call :func:`voxfast.ops.linear` instead, without touching a weight.
"""

import sys

import mlx.core as mx
import mlx.nn as nn

from voxfast import ops

__all__ = ["serve_linears"]


class Linear(nn.Linear):
    """y = x Wᵀ + b."""

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linear(x, self.weight, bias=self.get("bias"))


class QuantizedLinear(nn.QuantizedLinear):
    """The same with W in MLX's packed format."""

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linear(
            x,
            self.weight,
            self.scales,
            self.biases,
            self.get("bias"),
            group_size=self.group_size,
            bits=self.bits,
        )


class Embedding(nn.Embedding):
    """A table of rows that also serves as the last product."""

    def as_linear(self, x: mx.array) -> mx.array:
        return ops.linear(x, self.weight)


class QuantizedEmbedding(nn.QuantizedEmbedding):
    """The same in MLX's packed format."""

    def as_linear(self, x: mx.array) -> mx.array:
        return ops.linear(
            x, self.weight, self.scales, self.biases, group_size=self.group_size, bits=self.bits
        )


_SERVED = {
    nn.Linear: Linear,
    nn.QuantizedLinear: QuantizedLinear,
    nn.Embedding: Embedding,
    nn.QuantizedEmbedding: QuantizedEmbedding,
}


def serve_linears(model: nn.Module) -> None:
    """Let the linear layers and embeddings of a module compute with ``ops.linear``.

    Parameters, their names and their types stay. Does nothing where MLX is the faster one:
    on GPUs, and on macOS, where its CPU products run on Accelerate.
    """
    if sys.platform == "darwin" or mx.default_device() != mx.Device(mx.cpu):
        return
    for _, module in model.named_modules():
        served = _SERVED.get(type(module))
        if served is not None:
            module.__class__ = served
