"""Tensors of a checkpoint into a model: compared by name and shape, converted, read."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import compare_tensors
from voxfast.nn import serve_layers

__all__ = ["fill"]


def fill(model: nn.Module, tensors: dict[str, mx.array], dtype: mx.Dtype | None) -> None:
    """Give a model its weights, all in memory, once, and let voxfast's ops serve its layers.

    Args:
        tensors: by the model's own names; emptied.
        dtype: converts the unpacked ones; None keeps their types.

    Raises:
        CheckpointError: naming them, on missing, extra or misshapen tensors, and on packed
            ones where there must be plain ones, or the other way round.
    """
    expected = dict(tree_flatten(model.parameters()))
    compare_tensors(
        {name: tuple(x.shape) for name, x in tensors.items()},
        {name: tuple(x.shape) for name, x in expected.items()},
    )
    for name, tensor in tensors.items():
        if (tensor.dtype == mx.uint32) != (expected[name].dtype == mx.uint32):
            raise CheckpointError(
                f"{name!r} is of type {tensor.dtype}; uint32 is that of packed weights alone"
            )
    if dtype is not None:
        for name, tensor in tensors.items():
            if tensor.dtype != mx.uint32:
                tensors[name] = tensor.astype(dtype)
    model.load_weights(list(tensors.items()))
    tensors.clear()
    for _, tensor in tree_flatten(model.parameters()):
        mx.eval(tensor)  # one by one: never two copies of more than one tensor
    serve_layers(model)
