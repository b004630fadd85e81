"""The settings of a training run that both models have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .augment import Acoustics
from .mixture import EVALUATION_POOLS, MIXTURE

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """What a run does.

    Attributes:
        steps: training steps; the learning rate follows them.
        hours: times the hours of the pools that ``mixture.POOLS`` has.
        shard_seconds: speech that is synthesised between two states on disk.
        mixture: parts of the pools that are trained on.
        acoustics: what is done to the speech.
        workers: processes that make batches.
        report_every: seconds between two evaluations; ``save_every`` between two states on disk.
        dev_clips: clips of ``dev_seconds`` that a report transcribes of each held-out pool.
        calibration_clips: of 10 s each, to fit thresholds and timing on; 0: neither is fitted.
        evaluation: pools of the set of pseudo-speakers, with ``speaker_clips`` of
            ``speaker_seconds`` of each.
        short_clips, long_seconds: the evaluation set of espeak-ng.
    """

    steps: int = 6000
    hours: float = 1.0
    shard_seconds: float = 240
    mixture: Mapping[str, float] = field(default_factory=lambda: dict(MIXTURE))
    acoustics: Acoustics = field(default_factory=Acoustics)
    seed: int = 1
    threads: int = 2
    compile: bool = True
    device: str = "cpu"
    workers: int = 1
    peak_rate: float = 1.5e-3
    warm_up: int = 150
    save_every: float = 240
    report_every: float = 1200
    dev_clips: int = 8
    dev_seconds: float = 10
    calibration_clips: int = 150
    evaluation: Sequence[str] = EVALUATION_POOLS
    speaker_clips: int = 8
    speaker_seconds: float = 6.0
    short_clips: int = 40
    long_seconds: float = 180
