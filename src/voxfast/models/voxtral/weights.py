"""Loads Voxtral Realtime from its published layouts.

Layouts differ only in names and in the orientation of the convolutions. One table maps the
names. They are unambiguous across layouts, so each tensor is recognised by itself, independent
of the configuration file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import (
    CONSOLIDATED,
    is_there,
    load_tensors,
    read_json,
    refuse_transformers,
    weight_files,
)
from voxfast.models.values import check_packing
from voxfast.models.voxtral.config import VoxtralArgs, parse_args
from voxfast.models.voxtral.network import CausalConv, Voxtral
from voxfast.models.weights import fill

__all__ = ["Layout", "layout_names", "load_voxtral", "open_voxtral"]

Layout = Literal["mistral", "voxmlx", "mlx-audio"]

# Names here, in Mistral's original layout (without prefix), in voxmlx's, and in mlx-audio's.
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
_COLUMN: dict[Layout, int] = {"mistral": 1, "voxmlx": 2, "mlx-audio": 3}
# Names in transformers' own layout, which also orders the rows of q and k differently.
_TRANSFORMERS = ("audio_tower.", "multi_modal_projector.", "language_model.model.", "model.")


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


def load_voxtral(folder: Path, dtype: mx.Dtype | None = None) -> Voxtral:
    """The model in a folder, with all weights in memory.

    Args:
        folder: in any layout, plain or quantised, in one file or in shards.
        dtype: of the activations; None: that of most weights.

    Raises:
        CheckpointError: if the folder is incomplete, broken, or of another architecture.
    """
    model, tensors = open_voxtral(folder)
    fill(model, tensors, dtype)
    return model


def open_voxtral(folder: Path) -> tuple[Voxtral, dict[str, mx.array]]:
    """A model without weights, and the lazy tensors of a folder by the model's names.

    Raises:
        CheckpointError: if a file is missing or broken, or of another architecture.
    """
    config = _read_config(folder)
    check_packing(config)
    args = parse_args(config)
    tensors = load_tensors(weight_files(folder))
    refuse_transformers(folder, tensors, _TRANSFORMERS, "voxtral-mini-4b (Mistral's layout)")
    return Voxtral(args), _rename(tensors, args)


def _read_config(folder: Path) -> dict[str, Any]:
    """``params.json`` for Mistral's weights, ``config.json`` for others; one is enough."""
    found = [path for name in ("config.json", "params.json") if is_there(path := folder / name)]
    if not found:
        raise CheckpointError(
            f"{folder}: no checkpoint; expected params.json with consolidated.safetensors, or "
            "config.json with model*.safetensors"
        )
    if len(found) > 1 and weight_files(folder)[0].name == CONSOLIDATED:
        found.reverse()
    return read_json(found[0])


def _rename(tensors: dict[str, mx.array], args: VoxtralArgs) -> dict[str, mx.array]:
    """Rename tensors to names of this package; unknown names are kept, to be reported."""
    names = {
        there: here for layout in _COLUMN for there, here in layout_names(args, layout).items()
    }
    renamed: dict[str, mx.array] = {}
    for name, tensor in tensors.items():
        if name == "output.weight":  # a copy of the tied embedding in Mistral's layout
            continue
        bare = name
        for prefix in _PREFIXES:
            bare = bare.removeprefix(prefix)
        module, _, parameter = bare.rpartition(".")
        here = f"{names[module]}.{parameter}" if module in names else name
        if here in renamed:
            raise CheckpointError(f"{name!r:.80} is there twice, under another name as well")
        if "conv_layers" in here and tensor.ndim == 3 and tensor.shape[1] != CausalConv.KERNEL:
            tensor = tensor.swapaxes(1, 2)  # Mistral's is [out, in, kernel]
        renamed[here] = tensor
    return renamed
