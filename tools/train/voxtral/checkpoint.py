"""Checkpoints in the original Mistral layout: params.json, consolidated.safetensors, tekken.json.

The tokenizer is written by ``tokenizer.py``; here are the other two.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..mel import HOP, N_FFT
from ..speech import SAMPLE_RATE
from .config import ModelConfig, StackConfig
from .features import LOG_MEL_MAX
from .model import EMBEDDING, VoxtralRealtime
from .stream import FIRST_TEXT_ID, POSITION_SECONDS

__all__ = ["config_of", "load_checkpoint", "params_of", "save_checkpoint", "start_from"]

PARAMS, WEIGHTS, TOKENIZER = "params.json", "consolidated.safetensors", "tekken.json"


def save_checkpoint(folder: Path, model: VoxtralRealtime) -> str:
    """Writes params.json and the weights in bfloat16; returns a line about them."""
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes files that only their owner can read
    text = json.dumps(params_of(model.config), indent=2)
    (folder / PARAMS).write_text(text + "\n", encoding="utf-8")
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {parameters:,} parameters"


def load_checkpoint(folder: Path) -> VoxtralRealtime:
    """The model of a checkpoint, its bfloat16 weights widened to float32.

    Raises:
        RuntimeError: a tensor is missing, unknown or of the wrong shape.
    """
    params = json.loads((folder / PARAMS).read_text(encoding="utf-8"))
    model = VoxtralRealtime(config_of(params))
    tensors = load_file(folder / WEIGHTS)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def start_from(model: VoxtralRealtime, other: VoxtralRealtime) -> None:
    """Takes the weights of ``other``; tokens that it does not have begin near the mean of its text.

    Raises:
        RuntimeError: the models differ in more than the number of tokens.
    """
    weights = other.state_dict()
    rows, known = model.token_embedding.detach().clone(), other.token_embedding.detach()
    rows[: len(known)] = known
    mean = known[FIRST_TEXT_ID:].mean(0)
    rows[len(known) :] = mean + 0.3 * (rows[len(known) :])
    weights[EMBEDDING] = rows
    model.load_state_dict(weights)


def params_of(config: ModelConfig) -> dict[str, Any]:
    """The content of params.json."""
    encoder, decoder = config.encoder, config.decoder
    return {
        **_stack_params(decoder, config),
        "model_parallel": 1,
        "tied_embeddings": True,
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {
                        "sampling_rate": SAMPLE_RATE,
                        "frame_rate": 1 / POSITION_SECONDS,
                        "num_mel_bins": config.n_mels,
                        "hop_length": HOP,
                        "window_size": N_FFT,
                        "chunk_length_s": None,
                        "global_log_mel_max": LOG_MEL_MAX,
                        "transcription_format": "streaming",
                    },
                    **_stack_params(encoder, config),
                    "use_cache": False,
                    "pos_embed": "rope",
                    "max_source_positions": None,
                    "ffn_type": "swiglu",
                    "norm_type": "rms_norm",
                },
                "downsample_args": {"downsample_factor": config.downsample},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": decoder.delay_rank,
    }


def _stack_params(stack: StackConfig, config: ModelConfig) -> dict[str, Any]:
    return {
        "dim": stack.dim,
        "n_layers": stack.n_layers,
        "head_dim": stack.head_dim,
        "hidden_dim": stack.hidden_dim,
        "n_heads": stack.n_heads,
        "n_kv_heads": stack.n_kv_heads,
        "use_biases": stack.biases,
        "causal": True,
        "rope_theta": config.rope_theta,
        "norm_eps": config.norm_eps,
        "vocab_size": config.vocab_size,
        "sliding_window": stack.window,
    }


def config_of(params: dict[str, Any]) -> ModelConfig:
    """The sizes in a params.json.

    Raises:
        KeyError: an entry is missing.
    """
    whisper = params["multimodal"]["whisper_model_args"]
    encoder = whisper["encoder_args"]
    return ModelConfig(
        encoder=_stack_config(encoder),
        decoder=_stack_config(params, delay_rank=params["ada_rms_norm_t_cond_dim"]),
        vocab_size=params["vocab_size"],
        n_mels=encoder["audio_encoding_args"]["num_mel_bins"],
        downsample=whisper["downsample_args"]["downsample_factor"],
        rope_theta=params["rope_theta"],
        norm_eps=params["norm_eps"],
    )


def _stack_config(params: dict[str, Any], delay_rank: int = 0) -> StackConfig:
    return StackConfig(
        dim=params["dim"],
        n_layers=params["n_layers"],
        n_heads=params["n_heads"],
        n_kv_heads=params["n_kv_heads"],
        head_dim=params["head_dim"],
        hidden_dim=params["hidden_dim"],
        window=params["sliding_window"],
        biases=params["use_biases"],
        delay_rank=delay_rank,
    )
