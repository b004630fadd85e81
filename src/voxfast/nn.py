"""MLX layers that call voxfast's ops.

MLX's CPU build for Linux uses a reference BLAS, and scalar code for half precision and packed
weights. :func:`serve_layers` makes every linear layer, tied embedding and RMSNorm of a module
call voxfast's ops instead. Weights are not changed.
"""

import sys

import mlx.core as mx
import mlx.nn as nn

from voxfast import ops
from voxfast._native import _ext

__all__ = ["linears", "rows_are_independent", "serve_layers"]

# A module is a dict: attribute access takes twenty times as long as an item.


class Linear(nn.Linear):
    """y = x Wᵀ + b."""

    def operands(self) -> ops.LinearWeights:
        return ops.LinearWeights(self["weight"], bias=self.get("bias"))

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linears(x, [self.operands()])[0]


class QuantizedLinear(nn.QuantizedLinear):
    """The same with packed W."""

    def operands(self) -> ops.LinearWeights:
        return ops.LinearWeights(
            self["weight"], self["scales"], self["biases"], self.get("bias"),
            self.group_size, self.bits,
        )  # fmt: skip

    def __call__(self, x: mx.array) -> mx.array:
        return ops.linears(x, [self.operands()])[0]


class Embedding(nn.Embedding):
    """An embedding that is also the output projection."""

    def as_linear(self, x: mx.array) -> mx.array:
        return ops.linear(x, self["weight"])


class QuantizedEmbedding(nn.QuantizedEmbedding):
    """The same, packed."""

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
    """Several linear layers of one x, as one op if all of them call voxfast's ops."""
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
    """Make the linear layers, embeddings and norms of a module call voxfast's ops.

    Parameters, their names and their dtypes stay. Does nothing where MLX is faster: on GPUs,
    and on macOS, where its CPU products use Accelerate.
    """
    if sys.platform == "darwin" or mx.default_device() != mx.Device(mx.cpu):
        return
    for _, module in model.named_modules():
        served = _SERVED.get(type(module))
        if served is not None:
            module.__class__ = served


def rows_are_independent(model: nn.Module) -> bool:
    """Whether a row's bits do not depend on the rows beside it.

    So it is with voxfast's kernels. MLX's products sum in another order for one row than for
    several.
    """
    served = tuple(_SERVED.values())
    return _ext.is_native() and any(isinstance(module, served) for module in model.modules())
