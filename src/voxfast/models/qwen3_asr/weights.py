"""Loads Qwen3-ASR in the published layout or converted for MLX, plain or quantised."""

from pathlib import Path
from typing import Any

import mlx.core as mx

from voxfast.models.checkpoint import load_tensors, read_json, refuse_transformers, weight_files
from voxfast.models.qwen3_asr.config import parse_args
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.values import check_packing
from voxfast.models.weights import fill

__all__ = ["load_qwen3_asr"]

# Names in transformers' own layout, which also has another configuration.
_TRANSFORMERS = ("model.audio_tower.", "model.language_model.", "model.multi_modal_projector.")


def load_qwen3_asr(
    folder: Path, dtype: mx.Dtype | None = None, config: dict[str, Any] | None = None
) -> Qwen3ASR:
    """The model in a folder, with all weights in memory. No other folder is read.

    Args:
        folder: ``config.json`` and ``model*.safetensors``, in one file or in shards.
        dtype: of the activations; None: that of most weights.
        config: the content of ``config.json``, if it was read before.

    Raises:
        CheckpointError: if the folder is incomplete, broken, or of another architecture.
    """
    # Imported here: it takes a second, which other models should not pay.
    from mlx_qwen3_asr.config import Qwen3ASRConfig
    from mlx_qwen3_asr.convert import remap_weights
    from mlx_qwen3_asr.model import Qwen3ASRModel

    config = config or read_json(folder / "config.json")
    check_packing(config)
    tensors = load_tensors(weight_files(folder))
    refuse_transformers(folder, tensors, _TRANSFORMERS, "qwen3-asr-0.6b or qwen3-asr-1.7b")
    args = parse_args(config)
    network = Qwen3ASRModel(Qwen3ASRConfig.from_dict(config))
    tensors = remap_weights(tensors)
    if args.text.tied:
        network.pop("lm_head")
        tensors = {name: x for name, x in tensors.items() if not name.startswith("lm_head.")}
    fill(network, tensors, dtype)
    return Qwen3ASR(network, args)
