"""What the steps of a run do for voxtral-names: voxtral-numbers that learns 40 names, too."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..augment import Acoustics
from ..calibrate import Traits
from ..evalset import EvalClip
from ..grammar import WORDS
from ..mixture import NAMES_MIXTURE, RARE_DEV_POOLS
from ..speech import Word
from . import steps
from .config import ModelConfig
from .steps import batches, export, find_heads, fit_timing, task, tokenizer
from .tokenizer import RARE_MERGES

__all__ = [
    "RECIPE",
    "SMOKE",
    "TRAITS",
    "batches",
    "export",
    "find_heads",
    "fit_timing",
    "task",
    "tokenizer",
    "transcripts",
]

_CHANGES = {
    "model": ModelConfig(vocab_size=ModelConfig().vocab_size + RARE_MERGES),
    "words": WORDS,
    "mixture": NAMES_MIXTURE,
    # Not what a telephone leaves of a name: this is to be measured on names that can be heard.
    "acoustics": Acoustics(
        telephone=0, narrow=0, microphone=0, gate=0, coarse=0, clipping=0, room=0.15, hushed=0.1
    ),
    "calibration_clips": 0,
    "evaluation": RARE_DEV_POOLS,
    "speaker_seconds": 15.0,
}
RECIPE = replace(
    steps.RECIPE, **_CHANGES, steps=2000, peak_rate=1.2e-3, warm_up=60, speaker_clips=160
)
SMOKE = replace(steps.SMOKE, **_CHANGES)
TRAITS: Traits = {
    "description": "for measurements: knows 71 English words and 40 names",
    "demo": True,
    "delays_ms": steps.TRAITS["delays_ms"],
    "least_probability": 0.0,
    # As fitted to voxtral-numbers.
    "word_timing": {
        "end_offset": -0.51,
        "start_base": 0.157,
        "start_per_character": 0.044,
        "least_pause": 0.24,
    },
}


def transcripts(
    checkpoint: Path, clips: list[EvalClip]
) -> Iterator[tuple[str, dict[str, list[Word]]]]:
    """None by PyTorch: the set has hours."""
    yield from ()
