"""Sizes of the model and the settings of a training run."""

from dataclasses import dataclass, field

__all__ = ["ModelConfig", "Recipe", "StackConfig"]


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
class Recipe:
    """What a run does. The defaults made voxtral-numbers, up to the order of the batches.

    Attributes:
        seconds: time spent in training steps; the learning rate follows it.
        hours, dev_hours: synthetic speech in the two pools.
        positions: length of a training stream, padding included (225 = 18 s).
        delays: delays in positions, drawn per stream.
        report_every: seconds between two evaluations, each of which also saves.
        dev_clips: streams of ``dev_seconds`` that a report transcribes.
        short_clips, long_seconds: the evaluation set.
    """

    seconds: float = 1800
    hours: float = 24
    dev_hours: float = 0.4
    seed: int = 1
    threads: int = 2
    compile: bool = True
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: int = 8
    positions: int = 225
    delays: tuple[int, ...] = (3, 4, 6, 8, 10, 12)
    peak_rate: float = 1.5e-3
    warm_up: int = 150
    report_every: float = 240
    dev_clips: int = 24
    dev_seconds: float = 10
    short_clips: int = 40
    long_seconds: float = 180
