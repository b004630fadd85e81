"""Layers of a loaded model on voxfast's own kernels.

MLX's CPU build for Linux multiplies with a reference BLAS, and half precision and packed
weights with scalar code. :func:`serve_layers` lets every linear layer, tied embedding and
RMSNorm of a module call voxfast's ops instead, without touching a weight.
"""

import sys

import mlx.core as mx
import mlx.nn as nn

from voxfast import ops

__all__ = ["linears", "serve_layers"]

# A module is a dict; asking it for an attribute takes twenty times as long.


class Linear(nn.Linear):
    """y = x Wᵀ + b."""

    def operands(self) -> ops.LinearWeights:
        return ops.LinearWeights(self["weight"], bias=self.get("bias"))

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linears(x, [self.operands()])[0]


class QuantizedLinear(nn.QuantizedLinear):
    """The same with W in MLX's packed format."""

    def operands(self) -> ops.LinearWeights:
        return ops.LinearWeights(
            self["weight"], self["scales"], self["biases"], self.get("bias"),
            self.group_size, self.bits,
        )  # fmt: skip

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linears(x, [self.operands()])[0]


class Embedding(nn.Embedding):
    """A table of rows that also serves as the last product."""

    def as_linear(self, x: mx.array) -> mx.array:
        return ops.linear(x, self["weight"])


class QuantizedEmbedding(nn.QuantizedEmbedding):
    """The same in MLX's packed format."""

    def as_linear(self, x: mx.array) -> mx.array:
        return ops.linear(
            x,
            self["weight"],
            self["scales"],
            self["biases"],
            group_size=self.group_size,
            bits=self.bits,
        )


def linears(x: mx.array, *layers: nn.Module) -> list[mx.array]:
    """What each of several linear layers makes of x, as one op where all of them are served."""
    if all(isinstance(layer, Linear | QuantizedLinear) for layer in layers):
        return ops.linears(x, [layer.operands() for layer in layers])
    return [layer(x) for layer in layers]


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + eps) * weight."""

    def __call__(self, x: mx.array) -> mx.array:
        return ops.rms_norm(x, self["weight"], self.eps)


_SERVED = {
    nn.Linear: Linear,
    nn.QuantizedLinear: QuantizedLinear,
    nn.Embedding: Embedding,
    nn.QuantizedEmbedding: QuantizedEmbedding,
    nn.RMSNorm: RMSNorm,
}


def serve_layers(model: nn.Module) -> None:
    """Let linear layers, embeddings and norms of a module compute with voxfast's ops.

    Parameters, their names and their types stay. Does nothing where MLX is the faster one:
    on GPUs, and on macOS, where its CPU products run on Accelerate.
    """
    if sys.platform == "darwin" or mx.default_device() != mx.Device(mx.cpu):
        return
    for _, module in model.named_modules():
        served = _SERVED.get(type(module))
        if served is not None:
            module.__class__ = served
