"""The smallest checkpoint that is one: loads and runs in milliseconds."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from evaluation import VOXTRAL_FOLDER
from mlx.utils import tree_flatten

from voxfast.models.voxtral import Voxtral
from voxfast.models.voxtral_config import parse_args
from voxfast.models.voxtral_weights import layout_names

__all__ = ["N_SPECIAL", "write_tiny_voxtral"]

N_SPECIAL, N_TEXT = 40, 280
_SIZES = {
    "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "hidden_dim": 8,
    "sliding_window": 8, "norm_eps": 1e-5, "rope_theta": 1e4,
}  # fmt: skip


def write_tiny_voxtral(folder: Path) -> Path:
    """Write a Voxtral checkpoint of random weights, original layout, into a new folder."""
    folder.mkdir(parents=True)
    params = json.loads((VOXTRAL_FOLDER / "params.json").read_text(encoding="utf-8"))
    vocabulary = {"vocab_size": N_SPECIAL + N_TEXT}
    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    encoder |= _SIZES | vocabulary
    encoder["audio_encoding_args"]["num_mel_bins"] = 8
    params |= _SIZES | vocabulary | {"ada_rms_norm_t_cond_dim": 4}
    args = parse_args(params)
    model = Voxtral(args)
    names = {here: there for there, here in layout_names(args, "mistral").items()}
    mx.random.seed(0)
    tensors: dict[str, mx.array] = {}
    for path, tensor in tree_flatten(model.parameters()):
        module, _, parameter = path.rpartition(".")
        prefix = "" if names[module].startswith("layers.") or names[module] == "norm" else _PREFIX
        tensor = mx.random.normal(tensor.shape)
        if "conv_layers" in path and parameter == "weight":
            tensor = tensor.swapaxes(1, 2)
        tensors[f"{prefix}{names[module]}.{parameter}"] = tensor
    mx.save_safetensors(str(folder / "consolidated.safetensors"), tensors)
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")
    (folder / "tekken.json").write_text(json.dumps(_tekken()), encoding="utf-8")
    traits = json.loads((VOXTRAL_FOLDER / "voxfast.json").read_text(encoding="utf-8"))
    traits["least_probability"] = 0.0  # what random weights write is never likely
    (folder / "voxfast.json").write_text(json.dumps(traits), encoding="utf-8")
    return folder


_PREFIX = "mm_streams_embeddings.embedding_module."


def _tekken() -> dict[str, Any]:
    """The embedded tokenizer with fewer tokens."""
    tekken: dict[str, Any] = json.loads((VOXTRAL_FOLDER / "tekken.json").read_text("utf-8"))
    tekken["vocab"] = tekken["vocab"][:N_TEXT]
    tekken["special_tokens"] = tekken["special_tokens"][:N_SPECIAL]
    tekken["config"] |= {
        "num_vocab_tokens": N_TEXT,
        "default_vocab_size": N_SPECIAL + N_TEXT,
        "default_num_special_tokens": N_SPECIAL,
    }
    return tekken
