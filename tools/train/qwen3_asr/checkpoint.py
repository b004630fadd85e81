"""Checkpoints in the layout of Hugging Face: config.json, model.safetensors and their company."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..mel import HOP, N_FFT, N_MELS
from ..speech import SAMPLE_RATE
from .config import ModelConfig
from .model import Qwen3ASR, quantise
from .tokenizer import SPECIAL, Tokenizer

__all__ = ["HEADS", "WEIGHTS", "load_checkpoint", "save_checkpoint"]

WEIGHTS, HEADS = "model.safetensors", "alignment_heads.json"
EMBEDDING = "model.embed_tokens"
PREFIX = "thinker."
BITS = 2
CODES = 16  # in 32 bits


def save_checkpoint(folder: Path, model: Qwen3ASR, tokenizer: Tokenizer) -> str:
    """Writes everything but the tokenizer's files; returns a line about the weights.

    The embedding is stored as MLX's 2-bit affine codes, one group per row, with the rows of ids
    that are not in use all zero; everything else is float16.
    """
    tensors = {
        PREFIX + name: tensor.detach().half().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(EMBEDDING)
    }
    parameters = sum(tensor.numel() for tensor in tensors.values())
    tensors |= _packed(model, tokenizer)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes files that only their owner can read
    for name, document in _documents(model.config).items():
        (folder / name).write_text(json.dumps(document, indent=1), encoding="utf-8")
    return f"{len(tensors)} tensors, {parameters:,} parameters and {model.rows} rows in 2 bits"


def _packed(model: Qwen3ASR, tokenizer: Tokenizer) -> dict[str, Tensor]:
    codes, scale = quantise(model.model.embed_tokens.weight.detach().float())
    rows, dim = model.config.vocab_size, model.config.dim
    groups = codes.numpy().astype(np.uint64).reshape(-1, dim // CODES, CODES)
    shifts = BITS * np.arange(CODES, dtype=np.uint64)
    packed = np.zeros((rows, dim // CODES), np.uint32)
    packed[tokenizer.real] = (groups << shifts).sum(-1).astype(np.uint32)
    scales, biases = torch.zeros(rows, 1), torch.zeros(rows, 1)
    scales[tokenizer.real], biases[tokenizer.real] = scale, -1.5 * scale
    name = PREFIX + EMBEDDING
    return {
        f"{name}.weight": torch.from_numpy(packed.view(np.int32)).view(torch.uint32),
        f"{name}.scales": scales.half(),
        f"{name}.biases": biases.half(),
    }


def load_checkpoint(folder: Path, tokenizer: Tokenizer, config: ModelConfig) -> Qwen3ASR:
    """The model of an exported checkpoint, widened to float32.

    Raises:
        RuntimeError: a tensor is missing, unknown or of the wrong shape.
    """
    tensors = load_file(folder / WEIGHTS)
    embedding = [
        tensors.pop(f"{PREFIX}{EMBEDDING}.{part}") for part in ("weight", "scales", "biases")
    ]
    words = embedding[0].view(torch.int32).numpy().view(np.uint32)[tokenizer.real]
    codes = (words[..., None] >> (BITS * np.arange(CODES, dtype=np.uint32))) & (2**BITS - 1)
    scales, biases = (part.float()[tokenizer.real] for part in embedding[1:])
    rows = torch.from_numpy(codes.reshape(len(codes), -1).astype(np.float32)) * scales + biases
    state = {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()}
    model = Qwen3ASR(config, len(tokenizer.real))
    model.load_state_dict(state | {f"{EMBEDDING}.weight": rows})
    return model.eval()


def _documents(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights."""
    special = {content: number for number, content in SPECIAL.items()}
    pad, end = special["<|endoftext|>"], special["<|im_end|>"]
    return {
        "config.json": {
            "architectures": ["Qwen3ASRForConditionalGeneration"],
            "model_type": "qwen3_asr",
            "support_languages": ["English"],
            "thinker_config": {
                "model_type": "qwen3_asr_thinker",
                "dtype": "float16",
                "audio_config": _audio_config(config),
                "text_config": _text_config(config),
                "audio_token_id": special["<|audio_pad|>"],
                "audio_start_token_id": special["<|audio_start|>"],
                "audio_end_token_id": special["<|audio_end|>"],
                "user_token_id": 872,
                "initializer_range": 0.02,
            },
        },
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": [pad, end],
            "pad_token_id": pad,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": N_MELS,
            "sampling_rate": SAMPLE_RATE,
            "hop_length": HOP,
            "n_fft": N_FFT,
            "chunk_length": 30,
            "n_samples": 480000,
            "nb_max_frames": 3000,
            "padding_side": "right",
            "padding_value": 0.0,
            "dither": 0.0,
            "return_attention_mask": True,
            "processor_class": "Qwen3ASRProcessor",
        },
        # Those that training has guided; ``voxfast align-heads`` measures them all.
        HEADS: {
            "num_layers": config.layers,
            "num_heads": config.heads,
            "alignment_heads_compact": [list(pair) for pair in reversed(config.guided)],
        },
        "quantization_config.json": {
            "bits": BITS,
            "group_size": config.dim,
            "note": "only model.embed_tokens is quantised",
        },
    }


def _audio_config(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen3_asr_audio_encoder",
        "num_mel_bins": N_MELS,
        "encoder_layers": config.audio_layers,
        "encoder_attention_heads": config.audio_heads,
        "encoder_ffn_dim": config.audio_ffn,
        "d_model": config.audio_dim,
        "output_dim": config.dim,
        "max_source_positions": 1500,
        "n_window": 50,
        "n_window_infer": 800,
        "conv_chunksize": 500,
        "downsample_hidden_size": config.channels,
        "activation_function": "gelu",
        "dropout": 0,
        "attention_dropout": 0,
        "activation_dropout": 0,
        "scale_embedding": False,
        "initializer_range": 0.02,
    }


def _text_config(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 65536,
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "interleaved": True,
            "mrope_interleaved": True,
            "mrope_section": [12, 10, 10],
            "rope_type": "default",
            "type": "default",
        },
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
    }
