"""What the steps of a run do for voxtral-rare: voxtral-numbers, and names that it seldom hears."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..calibrate import Traits
from ..evalset import EvalClip
from ..grammar import WORDS
from ..mixture import RARE_MIXTURE, RARE_TEST_POOLS
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
    "mixture": RARE_MIXTURE,
    "calibration_clips": 0,
    "evaluation": RARE_TEST_POOLS,
    "speaker_seconds": 15.0,
}
RECIPE = replace(
    steps.RECIPE,
    **_CHANGES,
    steps=1000,
    peak_rate=1.2e-3,
    warm_up=60,
    speaker_clips=160,
)
SMOKE = replace(steps.SMOKE, **_CHANGES)
TRAITS: Traits = {
    "description": "for measurements: knows 71 English words well and 40 names hardly",
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
