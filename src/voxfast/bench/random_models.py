"""Both models at full size with random weights, drawn in memory: speed without a download."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_qwen3_asr.config import Qwen3ASRConfig
from mlx_qwen3_asr.model import Qwen3ASRModel

from voxfast.models.qwen3_asr.config import parse_args
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.voxtral.config import AudioArgs, TransformerArgs, VoxtralArgs
from voxfast.models.voxtral.network import Voxtral
from voxfast.nn import serve_layers

__all__ = [
    "QWEN3_ASR_0_6B",
    "QWEN3_ASR_1_7B",
    "VOXTRAL_4B",
    "qwen3_config",
    "random_qwen3_asr",
    "random_voxtral",
]

GROUP_SIZE = 64

VOXTRAL_4B = VoxtralArgs(
    AudioArgs(128, 1.5),
    TransformerArgs(1280, 32, 32, 32, 64, 5120, 750, 1e-5, 1e6),
    TransformerArgs(3072, 26, 32, 8, 128, 9216, 8192, 1e-5, 1e6),
    vocab_size=131072,
    downsample_factor=4,
    cond_dim=32,
)


def randomise(network: nn.Module, bits: int | None) -> None:
    """Gives every parameter a random value; weights of matrices keep the size of activations."""
    if bits is not None:
        nn.quantize(network, GROUP_SIZE, bits, class_predicate=packable)
    modules = dict(network.named_modules())
    drawn = []
    for path, parameter in tree_flatten(network.parameters()):
        module = modules[path.rpartition(".")[0]]
        drawn.append((path, draw(path.rpartition(".")[2], module, parameter, bits)))
    network.update(tree_unflatten(drawn))
    mx.eval(network.parameters())


def packable(_: str, module: nn.Module) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP_SIZE == 0


def draw(name: str, module: nn.Module, like: mx.array, bits: int | None) -> mx.array:
    if like.dtype == mx.uint32:
        rng = np.random.default_rng(0)
        return mx.array(rng.integers(0, 2**32, like.shape, dtype=np.uint32))
    if like.ndim == 1:
        ones = name == "weight"  # of norms
        return (mx.ones if ones else mx.zeros)(like.shape, mx.bfloat16)
    inputs = like.size // like.shape[0]
    if name in ("scales", "biases") and bits is not None:
        # Codes are uniform: their deviation is 2^bits / sqrt(12).
        scale = (12 / (inputs * GROUP_SIZE)) ** 0.5 / 2**bits
        return mx.full(
            like.shape, scale if name == "scales" else -scale * (2**bits - 1) / 2
        ).astype(mx.bfloat16)
    return mx.random.normal(like.shape, mx.bfloat16, scale=inputs**-0.5)


def qwen3_config(tower: tuple[int, int, int, int], decoder: tuple[int, int, int]) -> dict[str, Any]:
    """The published configuration for a size.

    Args:
        tower: layers, size, heads, inner size.
        decoder: layers, size, inner size.
    """
    layers, dim, heads, inner = tower
    audio = {"encoder_layers": layers, "d_model": dim, "encoder_attention_heads": heads,
             "encoder_ffn_dim": inner, "output_dim": decoder[1], "num_mel_bins": 128,
             "max_source_positions": 1500, "n_window": 50, "n_window_infer": 800,
             "downsample_hidden_size": 480}  # fmt: skip
    text = {"vocab_size": 151936, "num_hidden_layers": decoder[0], "hidden_size": decoder[1],
            "intermediate_size": decoder[2], "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 65536}  # fmt: skip
    thinker = {"audio_config": audio, "text_config": text}
    return {"model_type": "qwen3_asr", "thinker_config": thinker}


QWEN3_ASR_0_6B = qwen3_config((18, 896, 14, 3584), (28, 1024, 3072))
QWEN3_ASR_1_7B = qwen3_config((24, 1024, 16, 4096), (28, 2048, 6144))


def random_voxtral(bits: int | None, args: VoxtralArgs = VOXTRAL_4B) -> Voxtral:
    """Voxtral with random weights: packed to ``bits`` bits, or bfloat16 if None."""
    model = Voxtral(args)
    randomise(model, bits)
    serve_layers(model)
    return model


def random_qwen3_asr(config: dict[str, Any], bits: int | None) -> tuple[Any, Qwen3ASR]:
    """Qwen3-ASR with random weights, as in :func:`random_voxtral`: its modules, and the network."""
    modules = Qwen3ASRModel(Qwen3ASRConfig.from_dict(config))
    modules.pop("lm_head")
    randomise(modules, bits)
    serve_layers(modules)
    return modules, Qwen3ASR(modules, parse_args(config))
