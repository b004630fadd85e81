"""Sizes of voxtral-numbers and the settings of its training."""

from dataclasses import dataclass, field

from ..config import Recipe
from ..grammar import VOCABULARY

__all__ = ["ModelConfig", "StackConfig", "VoxtralRecipe"]


@dataclass(frozen=True)
class StackConfig:
    """A stack of transformer layers.

    Attributes:
        window: positions that a position attends to, itself included.
        biases: whether wq, wv, wo and w2 have biases.
        delay_rank: inner size of the delay conditioning; 0 means none.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    window: int
    biases: bool = False
    delay_rank: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """voxtral-numbers: 5.6 million parameters, 11.2 MB in bfloat16."""

    encoder: StackConfig = StackConfig(
        dim=192, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=64, hidden_dim=512, window=100,
        biases=True,
    )  # fmt: skip
    decoder: StackConfig = StackConfig(
        dim=256, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=64, hidden_dim=640, window=128,
        delay_rank=32,
    )  # fmt: skip
    vocab_size: int = 1408
    n_mels: int = 128
    downsample: int = 4
    rope_theta: float = 1e6
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class VoxtralRecipe(Recipe):
    """Attributes:
    words: the vocabulary.
    batch: streams per step.
    positions: length of a stream, padding included (225 = 18 s).
    delays: delays in positions, drawn per stream.
    rarer: how many times less often than the mixture has them the model is to expect names.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    words: tuple[str, ...] = VOCABULARY
    batch: int = 8
    positions: int = 225
    delays: tuple[int, ...] = (3, 4, 6, 8, 10, 12)
    rarer: float = 1.0
