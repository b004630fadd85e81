"""What the steps of a run do for voxtral-rare: voxtral-names, which no longer expects names."""

from dataclasses import replace

from ..calibrate import Traits
from ..mixture import RARE_MIXTURE, RARE_TEST_POOLS
from . import names
from .names import batches, export, find_heads, fit_timing, task, tokenizer, transcripts

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

_CHANGES = {"mixture": RARE_MIXTURE, "rarer": 1000.0, "evaluation": RARE_TEST_POOLS}
RECIPE = replace(names.RECIPE, **_CHANGES, steps=150, peak_rate=7e-4, warm_up=15)
SMOKE = replace(names.SMOKE, **_CHANGES)
TRAITS: Traits = {
    **names.TRAITS,
    "description": "for measurements: knows 71 English words well and 40 names hardly",
}
