"""Loading the tensors of a checkpoint into a model, plain or packed."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import compare_tensors
from voxfast.models.values import AFFINE_ONLY, BITS, GROUP_SIZES
from voxfast.nn import serve_layers

__all__ = ["arithmetic_dtype", "assign", "fill", "packing_of", "quantize_like"]


def fill(model: nn.Module, tensors: dict[str, mx.array], dtype: mx.Dtype | None) -> None:
    """Load all weights of a model into memory, and make its layers call voxfast's ops.

    Args:
        tensors: by the model's own names; emptied.
        dtype: of the activations; all tensors but packed integers are converted to it. None:
            that of :func:`arithmetic_dtype`.

    Raises:
        CheckpointError: as :func:`assign`.
    """
    assign(model, tensors, dtype or arithmetic_dtype(tensors))
    for _, tensor in tree_flatten(model.parameters()):
        mx.eval(tensor)  # one by one: at most one tensor is in memory twice
    serve_layers(model)


def assign(model: nn.Module, tensors: dict[str, mx.array], dtype: mx.Dtype | None) -> None:
    """Assign the weights of a model lazily: MLX reads each when it is first used.

    Args:
        tensors: by the model's own names; emptied.
        dtype: all tensors but packed integers are converted to it; None keeps their dtypes.

    Raises:
        CheckpointError: for missing, extra or misshapen tensors, packed instead of plain ones
            and vice versa; it names them.
    """
    quantize_like(model, tensors)
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


def arithmetic_dtype(tensors: dict[str, mx.array]) -> mx.Dtype:
    """The dtype of most weights, by bytes; with packed weights, of their scales.

    Conversions keep norms and biases in float32 beside half-precision weights. One such norm
    would promote all later activations, and the rings of keys and values, to float32.
    """
    scales = [x for name, x in tensors.items() if name.endswith(".scales")]
    counted: dict[mx.Dtype, int] = {}
    for tensor in scales or tensors.values():
        if tensor.dtype != mx.uint32:
            counted[tensor.dtype] = counted.get(tensor.dtype, 0) + tensor.nbytes
    return max(counted, key=lambda dtype: counted[dtype], default=mx.float32)


def quantize_like(model: nn.Module, tensors: dict[str, mx.array]) -> None:
    """Quantise the modules that have scales in the checkpoint, each with its own packing.

    Bits and group size are inferred from the shapes: conversions use different bits per
    module, and different formats to note them in the configuration.

    Raises:
        CheckpointError: for shapes of no affine packing, and for scales without biases.
    """
    packings: dict[tuple[int, int], set[str]] = {}
    modules = dict(model.named_modules())
    for name in tensors:
        path, _, parameter = name.rpartition(".")
        if parameter == "scales" and hasattr(modules.get(path), "to_quantized"):
            columns = modules[path].weight.shape[-1]
            packings.setdefault(packing_of(path, columns, tensors), set()).add(path)
    for (group_size, bits), paths in packings.items():
        nn.quantize(
            model,
            group_size=group_size,
            bits=bits,
            class_predicate=lambda path, _, paths=paths: path in paths,
        )


def packing_of(path: str, columns: int, tensors: dict[str, mx.array]) -> tuple[int, int]:
    """(group_size, bits) of a packed module with ``columns`` inputs.

    Raises:
        CheckpointError: for shapes of no affine packing, and for scales without biases.
    """
    weight, scales = tensors.get(f"{path}.weight"), tensors[f"{path}.scales"]
    if f"{path}.biases" not in tensors:
        raise CheckpointError(
            f"{path!r} is packed with scales but without biases, as mxfp4, nvfp4 and mxfp8 are. "
            f"{AFFINE_ONLY}"
        )
    if weight is not None and weight.ndim == scales.ndim == 2 and scales.shape[1]:
        group_size, bits = columns // scales.shape[1], 32 * weight.shape[1] // columns
        if group_size in GROUP_SIZES and bits in BITS and columns % group_size == 0:
            return group_size, bits
    shape = None if weight is None else tuple(weight.shape)
    raise CheckpointError(
        f"{path!r} of {columns} columns cannot be packed as {shape} with scales "
        f"{tuple(scales.shape)}; MLX packs 2 to 8 bits in groups of 32, 64 or 128"
    )
