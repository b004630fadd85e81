"""Loads Qwen3-ASR: the published layout and its conversions for MLX, plain or quantised."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import load_tensors, read_json, weight_files
from voxfast.models.qwen3_asr import Qwen3ASR
from voxfast.models.qwen3_asr_config import parse_args
from voxfast.models.weights import fill

__all__ = ["load_qwen3_asr"]

_BITS = (2, 3, 4, 5, 6, 8)
_GROUP_SIZES = (32, 64, 128)


def load_qwen3_asr(folder: Path, dtype: mx.Dtype | None = None) -> Qwen3ASR:
    """The model in a folder, all weights in memory, once. Nothing outside it is read.

    Args:
        folder: ``config.json`` and ``model*.safetensors``, whole or in shards.
        dtype: converts the unpacked weights; None keeps the types of the file.

    Raises:
        CheckpointError: if the folder is incomplete, broken, or of another architecture.
    """
    # Imported when it is needed: it takes a second that other models should not pay.
    from mlx_qwen3_asr.config import Qwen3ASRConfig
    from mlx_qwen3_asr.convert import remap_weights
    from mlx_qwen3_asr.model import Qwen3ASRModel

    config = read_json(folder / "config.json")
    args = parse_args(config)
    network = Qwen3ASRModel(Qwen3ASRConfig.from_dict(config))
    tensors = remap_weights(load_tensors(weight_files(folder)))
    if args.text.tied:
        network.pop("lm_head")
        tensors = {name: x for name, x in tensors.items() if not name.startswith("lm_head.")}
    _quantize_like(network, tensors)
    fill(network, tensors, dtype)
    return Qwen3ASR(network, args)


def _quantize_like(network: nn.Module, tensors: dict[str, mx.array]) -> None:
    """Make those modules quantised whose scales the checkpoint has, each as it was packed.

    Bits and group size follow from the shapes: conversions often pack the audio tower in
    more bits than the decoder, and the configuration names one number only.
    """
    packings: dict[tuple[int, int], set[str]] = {}
    modules = dict(network.named_modules())
    for name in tensors:
        path, _, parameter = name.rpartition(".")
        if parameter == "scales" and hasattr(modules.get(path), "to_quantized"):
            packings.setdefault(_packing(path, modules[path], tensors), set()).add(path)
    for (group_size, bits), paths in packings.items():
        nn.quantize(
            network,
            group_size=group_size,
            bits=bits,
            class_predicate=lambda path, _, paths=paths: path in paths,
        )


def _packing(path: str, module: nn.Module, tensors: dict[str, mx.array]) -> tuple[int, int]:
    columns = module.weight.shape[-1]
    weight, scales = tensors.get(f"{path}.weight"), tensors[f"{path}.scales"]
    if weight is not None and weight.ndim == scales.ndim == 2 and scales.shape[1]:
        group_size, bits = columns // scales.shape[1], 32 * weight.shape[1] // columns
        if group_size in _GROUP_SIZES and bits in _BITS and columns % group_size == 0:
            return group_size, bits
    shape = None if weight is None else tuple(weight.shape)
    raise CheckpointError(
        f"{path!r} of {columns} columns cannot be packed as {shape} with scales "
        f"{tuple(scales.shape)}; MLX packs 2 to 8 bits in groups of 32, 64 or 128"
    )
