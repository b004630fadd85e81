"""Writes checkpoints in voxmlx's layout, plain or quantised."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models import traits
from voxfast.models.checkpoint import check_file
from voxfast.models.voxtral import Voxtral
from voxfast.models.voxtral_config import TransformerArgs, VoxtralArgs
from voxfast.models.voxtral_weights import layout_names, load_voxtral

__all__ = ["convert"]

SHARD_BYTES = 4 << 30
GROUP_SIZES = (32, 64, 128)
BITS = (2, 3, 4, 5, 6, 8)


def convert(
    source: Path,
    target: Path,
    *,
    bits: int | None = 4,
    group_size: int = 64,
    dtype: mx.Dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a Voxtral checkpoint in voxmlx's layout, which other MLX programs read as well.

    Args:
        source: a folder in any layout, not quantised if ``bits`` is given.
        target: the folder to make; it must not exist, or be empty.
        bits: 2, 3, 4, 5, 6 or 8 bits a weight in MLX's affine packing; None packs nothing.
            Every matrix whose rows divide into groups is packed.
        group_size: weights that share a scale: 32, 64 or 128.
        dtype: type of what is not packed; None keeps it.
        shard_bytes: most bytes of one file.

    Returns:
        The target.

    Raises:
        CheckpointError: if the source is unusable or quantised already.
        InvalidOptionError: on another width or group size, or a target that is not empty.
    """
    if bits is not None and (bits not in BITS or group_size not in GROUP_SIZES):
        raise InvalidOptionError(
            f"MLX packs {BITS} bits in groups of {GROUP_SIZES}; got {bits} in groups of "
            f"{group_size}"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidOptionError(f"{target}: exists and is not empty; name a new folder")
    model = load_voxtral(source, dtype)
    args = model.args
    if bits is not None:
        if args.quantization is not None:
            raise CheckpointError(f"{source}: is quantised already, to {args.quantization[1]} bits")
        nn.quantize(
            model,
            group_size,
            bits,
            class_predicate=lambda _, module: (
                hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size == 0
            ),
        )
    config = _config(args)
    quantization = (group_size, bits) if bits is not None else args.quantization
    if quantization is not None:
        config["quantization"] = {"group_size": quantization[0], "bits": quantization[1]}
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the target and moved into place: an interruption leaves no half folder.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        _write_weights(model, folder, shard_bytes)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        for name in ("tekken.json", traits.FILE):
            if (source / name).is_file():
                check_file(source / name)
                shutil.copyfile(source / name, folder / name)
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return target


def _write_weights(model: Voxtral, folder: Path, shard_bytes: int) -> None:
    names = {here: there for there, here in layout_names(model.args, "voxmlx").items()}
    tensors = {}
    for path, tensor in tree_flatten(model.parameters()):
        module, _, parameter = path.rpartition(".")
        tensors[f"{names[module]}.{parameter}"] = tensor
    shards = list(_shards(tensors, shard_bytes))
    index: dict[str, Any] = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {},
    }
    for i, shard in enumerate(shards, 1):
        name = (
            f"model-{i:05d}-of-{len(shards):05d}.safetensors"
            if len(shards) > 1
            else "model.safetensors"
        )
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "mlx"})
        index["weight_map"] |= dict.fromkeys(shard, name)
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(tensors: dict[str, mx.array], most: int) -> Iterator[dict[str, mx.array]]:
    shard: dict[str, mx.array] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > most:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _config(args: VoxtralArgs) -> dict[str, Any]:
    """The sizes as the original ``params.json`` has them."""
    audio = {
        "sampling_rate": 16000, "frame_rate": 16000 / args.samples_per_position,
        "num_mel_bins": args.audio.n_mels, "hop_length": 160, "window_size": 400,
        "global_log_mel_max": args.audio.global_log_mel_max,
        "transcription_format": "streaming",
    }  # fmt: skip
    encoder = _transformer(args.encoder) | {
        "audio_encoding_args": audio, "use_biases": True, "causal": True, "pos_embed": "rope",
        "ffn_type": "swiglu", "norm_type": "rms_norm", "vocab_size": args.vocab_size,
    }  # fmt: skip
    return _transformer(args.decoder) | {
        "use_biases": False, "causal": True, "tied_embeddings": True,
        "vocab_size": args.vocab_size, "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": args.cond_dim,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": encoder,
                "downsample_args": {"downsample_factor": args.downsample_factor},
            }
        },
    }  # fmt: skip


def _transformer(args: TransformerArgs) -> dict[str, Any]:
    return {
        "dim": args.dim, "n_layers": args.n_layers, "n_heads": args.n_heads,
        "n_kv_heads": args.n_kv_heads, "head_dim": args.head_dim, "hidden_dim": args.hidden_dim,
        "sliding_window": args.sliding_window, "norm_eps": args.norm_eps,
        "rope_theta": args.rope_theta,
    }  # fmt: skip
