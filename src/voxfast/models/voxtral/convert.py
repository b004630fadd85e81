"""Writing checkpoints in voxmlx's layout, plain or quantised, tensor by tensor."""

import json
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.features import HOP_LENGTH, N_FFT
from voxfast.models import traits
from voxfast.models.checkpoint import INDEX, check_file, is_there
from voxfast.models.values import BITS, GROUP_SIZES
from voxfast.models.voxtral.config import TransformerArgs, VoxtralArgs
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.weights import layout_names, open_voxtral
from voxfast.models.weights import assign

__all__ = ["convert"]

SHARD_BYTES = 4 << 30
_DTYPES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32"}


def convert(
    source: Path,
    target: Path,
    *,
    bits: int | None = 4,
    group_size: int = 64,
    dtype: mx.Dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a Voxtral checkpoint in voxmlx's layout, which other MLX programs read, too.

    One tensor at a time is in memory; the largest of the published model has 0.8 GB.

    Args:
        source: a folder in any layout, not quantised if ``bits`` is given.
        target: the new folder; it must not exist, or be empty.
        bits: 2, 3, 4, 5, 6 or 8 bits per weight in MLX's affine packing; None packs nothing.
            Every matrix is packed whose number of columns is a multiple of the group size.
        group_size: weights that share a scale: 32, 64 or 128.
        dtype: of unpacked tensors; None keeps it.
        shard_bytes: maximal size of a file, in bytes.
        progress: called from time to time with (bytes written, total bytes).

    Returns:
        The target.

    Raises:
        CheckpointError: if the source is unusable or quantised already.
        InvalidOptionError: for another number of bits or group size, or a target that is not
            empty.
    """
    if bits is not None and (bits not in BITS or group_size not in GROUP_SIZES):
        raise InvalidOptionError(
            f"MLX packs {BITS} bits in groups of {GROUP_SIZES}; got {bits} in groups of "
            f"{group_size}"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidOptionError(f"{target}: exists and is not empty; name a new folder")
    model, tensors = open_voxtral(source)
    packed = sorted(name for name in tensors if name.endswith(".scales"))
    if bits is not None and packed:
        raise CheckpointError(f"{source}: is quantised already, such as {packed[0]!r}")
    assign(model, tensors, dtype)
    if bits is not None:
        nn.quantize(
            model,
            group_size,
            bits,
            class_predicate=lambda _, module: (
                hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size == 0
            ),
        )
    config = _config(model.args) | _packing(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the target and moved into place: an interruption leaves no partial folder. The
    # configuration is written last, so a killed process leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        _write_weights(model, folder, shard_bytes, progress or (lambda done, total: None))
        for name in ("tekken.json", traits.FILE):
            if is_there(source / name):
                check_file(source / name)
                shutil.copyfile(source / name, folder / name)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return target


def _voxmlx_names(args: VoxtralArgs) -> dict[str, str]:
    return {here: there for there, here in layout_names(args, "voxmlx").items()}


def _packing(model: Voxtral) -> dict[str, Any]:
    """The packing of most modules, and the exceptions by name."""
    names = _voxmlx_names(model.args)
    found = {
        names[path]: {"group_size": module.group_size, "bits": module.bits}
        for path, module in model.named_modules()
        if "scales" in module
    }
    if not found:
        return {}
    counted = Counter(tuple(entry.values()) for entry in found.values())
    (group_size, bits), _ = counted.most_common(1)[0]
    common: dict[str, Any] = {"group_size": group_size, "bits": bits}
    others = {name: entry for name, entry in found.items() if entry != common}
    return {"quantization": common | others}


def _write_weights(
    model: Voxtral, folder: Path, shard_bytes: int, progress: Callable[[int, int], None]
) -> None:
    """Write all weights; each is computed right before and released right after."""
    names = _voxmlx_names(model.args)
    tensors: dict[str, mx.array] = {}
    for path, tensor in tree_flatten(model.parameters()):
        module, _, parameter = path.rpartition(".")
        tensors[f"{names[module]}.{parameter}"] = tensor
    model.update(tree_map(lambda _: mx.zeros(0), model.parameters()))
    shards = [list(shard) for shard in _shards(tensors, shard_bytes)]
    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0
    index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": {}}
    for i, shard in enumerate(shards, 1):
        name = (
            f"model-{i:05d}-of-{len(shards):05d}.safetensors"
            if len(shards) > 1
            else "model.safetensors"
        )
        index["weight_map"] |= dict.fromkeys(shard, name)
        with (folder / name).open("wb") as file:
            file.write(_header({key: tensors[key] for key in shard}))
            for key in shard:
                tensor = tensors.pop(key)
                file.write(np.asarray(mx.contiguous(tensor).view(mx.uint8)).data)
                done += tensor.nbytes
                del tensor
                mx.clear_cache()
                progress(done, total)
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / INDEX).write_text(text, encoding="utf-8")


def _header(tensors: dict[str, mx.array]) -> bytes:
    """The header of a safetensors file: github.com/huggingface/safetensors."""
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    at = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (at, at + tensor.nbytes),
        }
        at += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


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
    """The sizes in the format of the original ``params.json``."""
    audio = {
        "sampling_rate": SAMPLE_RATE, "frame_rate": SAMPLE_RATE / args.samples_per_position,
        "num_mel_bins": args.audio.n_mels, "hop_length": HOP_LENGTH, "window_size": N_FFT,
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
