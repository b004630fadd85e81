"""What the steps of a run do for voxtral-rare: voxtral-names, which then hardly hears a name."""

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

_CHANGES = {"mixture": RARE_MIXTURE, "evaluation": RARE_TEST_POOLS}
RECIPE = replace(names.RECIPE, **_CHANGES, steps=100, peak_rate=5e-4, warm_up=10)
SMOKE = replace(names.SMOKE, **_CHANGES)
TRAITS: Traits = {
    **names.TRAITS,
    "description": "for measurements: knows 71 English words well and 40 names hardly",
}
