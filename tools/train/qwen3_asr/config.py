"""Sizes of qwen3-asr-numbers and the settings of its training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..config import Recipe
from ..mixture import MIXTURE

__all__ = ["ModelConfig", "QwenRecipe", "Shape"]


@dataclass(frozen=True)
class ModelConfig:
    """qwen3-asr-numbers: 2.6 million parameters, and an embedding in 2 bits.

    Attributes:
        audio_dim, audio_layers, audio_heads, audio_ffn, channels: the audio tower; ``channels`` of
            its three convolutions.
        window: audio tokens of a window of the audio tower (8 s).
        dim, layers, heads, kv_heads, head_dim, ffn: the decoder.
        vocab_size: rows of the published embedding; all but those in use are zero.
        guided: (layer, head) of the heads that are taught to look at the end of the written word.
    """

    audio_dim: int = 160
    audio_layers: int = 4
    audio_heads: int = 4
    audio_ffn: int = 640
    channels: int = 32
    window: int = 104
    dim: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 512
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    vocab_size: int = 151936
    guided: tuple[tuple[int, int], ...] = ((1, 0), (2, 0), (2, 1))


@dataclass(frozen=True)
class Shape:
    """A kind of batch: one size each, so that a step compiles once.

    Attributes:
        clips, seconds: how many, and their greatest length.
        tokens, targets: room for the whole sequence and for what follows the prompt.
    """

    clips: int
    seconds: float
    tokens: int
    targets: int


@dataclass(frozen=True)
class QwenRecipe(Recipe):
    """Attributes:
    mixture: with more of espeak-ng, the fastest speech, in which it leaves words out.
    shapes: short, usual and long clips.
    short_until, long_from: parts of the training at which short clips end and long ones begin.
    long_every: of so many batches one is of long clips.
    """

    peak_rate: float = 1.5e-3
    mixture: Mapping[str, float] = field(
        default_factory=lambda: {**MIXTURE, "espeak": 100, "espeak_digits": 10}
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    shapes: tuple[Shape, Shape, Shape] = (
        Shape(28, 6, 160, 48),
        Shape(16, 14, 304, 88),
        Shape(5, 30, 608, 168),
    )
    short_until: float = 0.22
    long_from: float = 0.45
    long_every: int = 4
