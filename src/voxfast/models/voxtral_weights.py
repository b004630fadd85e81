"""Loads Voxtral Realtime from its three published layouts, and writes one of them.

Layouts differ in names and in the orientation of the convolutions only. One table says what
each part of the model is called in each; everything else follows from it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import load_tensors, read_json, weight_files
from voxfast.models.voxtral import Voxtral
from voxfast.models.voxtral_config import VoxtralArgs, parse_args
from voxfast.models.weights import fill

__all__ = ["Layout", "layout_names", "load_voxtral", "read_config"]

Layout = Literal["mistral", "voxmlx", "mlx-audio"]

# Here, in the original Mistral layout (without prefix), in voxmlx's, in mlx-audio's.
# "#" stands for the number of the layer.
_ENCODER = [
    ("conv_layers.0", "conv_layers.0.conv", "conv1", "conv_layers_0_conv.conv"),
    ("conv_layers.1", "conv_layers.1.conv", "conv2", "conv_layers_1_conv.conv"),
    ("norm", "transformer.norm", "norm", "transformer_norm"),
]
_LAYER = [
    ("attention.wq", "attention.wq", "attention.q_proj", "attention.wq"),
    ("attention.wk", "attention.wk", "attention.k_proj", "attention.wk"),
    ("attention.wv", "attention.wv", "attention.v_proj", "attention.wv"),
    ("attention.wo", "attention.wo", "attention.o_proj", "attention.wo"),
    ("attention_norm", "attention_norm", "attn_norm", "attention_norm"),
    ("feed_forward.w1", "feed_forward.w1", "mlp.gate_proj", "feed_forward_w1"),
    ("feed_forward.w2", "feed_forward.w2", "mlp.down_proj", "feed_forward_w2"),
    ("feed_forward.w3", "feed_forward.w3", "mlp.up_proj", "feed_forward_w3"),
    ("ffn_norm", "ffn_norm", "ffn_norm", "ffn_norm"),
]
_DELAY = [
    ("delay.down", "ada_rms_norm_t_cond.0", "ada_norm.linear_in", "ada_rms_norm_t_cond.ada_down"),
    ("delay.up", "ada_rms_norm_t_cond.2", "ada_norm.linear_out", "ada_rms_norm_t_cond.ada_up"),
]
_REST = [
    ("adapter.w_in", "audio_language_projection.0", "adapter.w_in",
     "encoder.audio_language_projection_0"),
    ("adapter.w_out", "audio_language_projection.2", "adapter.w_out",
     "encoder.audio_language_projection_2"),
    ("decoder.tok_embeddings", "tok_embeddings", "language_model.embed_tokens",
     "decoder.tok_embeddings"),
    ("decoder.norm", "norm", "language_model.norm", "decoder.norm"),
]  # fmt: skip
_PREFIXES = ("mm_streams_embeddings.embedding_module.", "mm_whisper_embeddings.")
_COLUMN = {"mistral": 1, "voxmlx": 2, "mlx-audio": 3}


def layout_names(args: VoxtralArgs, layout: Layout) -> dict[str, str]:
    """Module paths of a layout → module paths of :class:`Voxtral`."""

    def rows() -> Iterator[tuple[str, str, str, str]]:
        for here, mistral, voxmlx, audio in _ENCODER:
            yield (f"encoder.{here}", f"whisper_encoder.{mistral}", f"encoder.{voxmlx}",
                   f"encoder.{audio}")  # fmt: skip
        for i in range(args.encoder.n_layers):
            for here, mistral, voxmlx, audio in _LAYER:
                yield (f"encoder.layers.{i}.{here}",
                       f"whisper_encoder.transformer.layers.{i}.{mistral}",
                       f"encoder.layers.{i}.{voxmlx}",
                       f"encoder.transformer_layers.{i}.{audio}")  # fmt: skip
        for i in range(args.decoder.n_layers):
            for here, mistral, voxmlx, audio in _LAYER + _DELAY:
                yield (f"decoder.layers.{i}.{here}", f"layers.{i}.{mistral}",
                       f"language_model.layers.{i}.{voxmlx}",
                       f"decoder.layers.{i}.{audio}")  # fmt: skip
        yield from _REST

    column = _COLUMN[layout]
    return {row[column]: row[0] for row in rows()}


def read_config(folder: Path) -> tuple[dict[str, Any], Layout]:
    """The configuration of a checkpoint folder and its layout.

    Raises:
        CheckpointError: if the folder holds no configuration.
    """
    if (folder / "params.json").is_file() and (folder / "consolidated.safetensors").is_file():
        return read_json(folder / "params.json"), "mistral"
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no checkpoint; expected params.json with consolidated.safetensors, or "
            "config.json with model*.safetensors"
        )
    config = read_json(folder / "config.json")
    return config, "voxmlx" if "multimodal" in config else "mlx-audio"


def load_voxtral(folder: Path, dtype: mx.Dtype | None = None) -> Voxtral:
    """The model in a folder, all weights in memory, once.

    Args:
        folder: in any of the three layouts, plain or quantised, whole or in shards.
        dtype: converts the unpacked weights; None keeps the types of the file.

    Raises:
        CheckpointError: if the folder is incomplete, broken, or of another architecture.
    """
    config, layout = read_config(folder)
    args = parse_args(config)
    tensors = _rename(load_tensors(weight_files(folder)), args, layout)
    model = Voxtral(args)
    _quantize_like(model, tensors, args)
    fill(model, tensors, dtype)
    return model


def _rename(tensors: dict[str, mx.array], args: VoxtralArgs, layout: Layout) -> dict[str, mx.array]:
    """Names of this package; unknown names stay, to be reported."""
    names = layout_names(args, layout)
    renamed: dict[str, mx.array] = {}
    for name, tensor in tensors.items():
        bare = name
        if layout == "mistral":
            if name == "output.weight":  # repeats the tied embedding
                continue
            for prefix in _PREFIXES:
                bare = bare.removeprefix(prefix)
        module, _, parameter = bare.rpartition(".")
        here = names.get(module)
        if here is None:
            renamed[name] = tensor
            continue
        if layout == "mistral" and "conv_layers" in here and parameter == "weight":
            if tensor.ndim != 3:
                raise CheckpointError(f"{name!r} must have 3 dimensions, not {tensor.ndim}")
            tensor = tensor.swapaxes(1, 2)
        renamed[f"{here}.{parameter}"] = tensor
    return renamed


def _quantize_like(model: Voxtral, tensors: dict[str, mx.array], args: VoxtralArgs) -> None:
    """Make those modules quantised whose scales the checkpoint has."""
    packed = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    if not packed:
        return
    if args.quantization is None:
        raise CheckpointError(
            f"{min(packed)!r} is quantised, but the configuration has no 'quantization'"
        )
    group_size, bits = args.quantization

    def predicate(path: str, module: nn.Module) -> bool:
        if path not in packed or not hasattr(module, "to_quantized"):
            return False
        columns = module.weight.shape[-1]
        if columns % group_size:
            raise CheckpointError(f"{path!r} has {columns} columns: no multiple of {group_size}")
        return True

    nn.quantize(model, group_size=group_size, bits=bits, class_predicate=predicate)
