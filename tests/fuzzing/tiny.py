"""The smallest checkpoints that are ones: they load and run in milliseconds."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from evaluation import QWEN_FOLDER, VOXTRAL_FOLDER
from mlx.utils import tree_flatten, tree_map

from voxfast.models.voxtral.config import parse_args
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.weights import layout_names

__all__ = ["N_QWEN", "N_SPECIAL", "write_tiny_qwen3_asr", "write_tiny_voxtral"]

N_SPECIAL, N_TEXT = 40, 280
_SIZES = {
    "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "hidden_dim": 8,
    "sliding_window": 8, "norm_eps": 1e-5, "rope_theta": 1e4,
}  # fmt: skip


def write_tiny_voxtral(folder: Path, **sizes: int) -> Path:
    """Write a Voxtral checkpoint of random weights, original layout, into a new folder.

    Args:
        folder: to make.
        **sizes: other values of ``params.json``, for encoder and decoder.
    """
    folder.mkdir(parents=True)
    params = json.loads((VOXTRAL_FOLDER / "params.json").read_text(encoding="utf-8"))
    vocabulary = {"vocab_size": N_SPECIAL + N_TEXT}
    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    encoder |= _SIZES | sizes | vocabulary
    encoder["audio_encoding_args"]["num_mel_bins"] = 8
    params |= _SIZES | {"ada_rms_norm_t_cond_dim": 4} | sizes | vocabulary
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


N_QWEN, _END, _ASR_TEXT = 151_712, 151_645, 151_704


def write_tiny_qwen3_asr(folder: Path) -> Path:
    """Write a Qwen3-ASR checkpoint of random weights into a new folder.

    Whatever it hears it writes words, and now and then the end of the text or ``<asr_text>``:
    these two have longer embeddings than text tokens, and other tokens have none.
    """
    from mlx_qwen3_asr.config import Qwen3ASRConfig
    from mlx_qwen3_asr.model import Qwen3ASRModel

    folder.mkdir(parents=True)
    for name in ("merges.txt", "vocab.json", "tokenizer_config.json"):
        shutil.copy(QWEN_FOLDER / name, folder)
    n_text = len(json.loads((QWEN_FOLDER / "vocab.json").read_text(encoding="utf-8")))
    config = json.loads((QWEN_FOLDER / "config.json").read_text(encoding="utf-8"))
    config["thinker_config"]["audio_config"] |= {
        "num_mel_bins": 8, "encoder_layers": 1, "encoder_attention_heads": 1, "encoder_ffn_dim": 4,
        "d_model": 4, "output_dim": 32, "downsample_hidden_size": 2, "max_source_positions": 13,
    }  # fmt: skip
    config["thinker_config"]["text_config"] |= {
        "vocab_size": N_QWEN, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "rope_scaling": {"mrope_section": [2, 1, 1]},
    }  # fmt: skip
    network = Qwen3ASRModel(Qwen3ASRConfig.from_dict(config))
    network.pop("lm_head")  # tied
    mx.random.seed(0)
    network.update(tree_map(lambda x: mx.random.normal(x.shape), network.parameters()))
    embeddings = network.model.embed_tokens.weight
    network.model.embed_tokens.weight = mx.concatenate(
        [embeddings[:n_text], mx.zeros_like(embeddings[n_text:])]
    )
    for token, length in ((_END, 2), (_ASR_TEXT, 6)):
        network.model.embed_tokens.weight[token] = length * embeddings[token]
    nn.quantize(network, 32, 2, class_predicate=lambda path, _: path == "model.embed_tokens")
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))
    heads = {"alignment_heads_compact": [[0, 0], [0, 1]]}
    for name, content in (
        ("config.json", config), ("alignment_heads.json", heads), ("voxfast.json", {"demo": True})
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder
