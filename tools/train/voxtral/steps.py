"""What the steps of a run do for voxtral-numbers."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..calibrate import Pair, Traits
from ..clips import Clip
from ..evalset import EvalClip
from ..pool import Mixture, Pool
from ..speech import Word
from .batches import Batches
from .checkpoint import TOKENIZER, load_checkpoint, save_checkpoint, start_from
from .config import VoxtralRecipe
from .decode import transcribe
from .stream import POSITION_SECONDS
from .task import VoxtralTask
from .tokenizer import load_tokenizer, word_tokens, write_tokenizer

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

Recipe = VoxtralRecipe
RECIPE = VoxtralRecipe()
SMOKE = VoxtralRecipe(
    steps=6, hours=0.001, shard_seconds=8, threads=1, compile=False, calibration_clips=4,
    speaker_clips=1, batch=2,
    positions=100, warm_up=5, dev_clips=2, dev_seconds=3, short_clips=3, long_seconds=10,
)  # fmt: skip
VERIFIED_DELAYS = (3, 6, 12)
TRAITS: Traits = {
    "description": "a demonstration that knows 71 English words (numbers, units, simple commands) "
    "and nothing else; for real speech: voxtral-mini-4b",
    "demo": True,
    "delays_ms": [240, 320, 480, 640, 800, 960],
    "least_probability": 0.0,
    "word_timing": {
        "end_offset": -0.5,
        "start_base": 0.16,
        "start_per_character": 0.05,
        "least_pause": 0.24,
    },
}


def tokenizer(folder: Path, recipe: VoxtralRecipe) -> str:
    return f"{write_tokenizer(folder / TOKENIZER, recipe.words)} tokens"


def task(
    recipe: VoxtralRecipe, tokenizer: Path, dev_pools: Mapping[str, Pool], start: Path | None
) -> VoxtralTask:
    made = VoxtralTask(recipe, load_tokenizer(tokenizer / TOKENIZER), dev_pools)
    if start is not None:
        start_from(made.trainee.model, load_checkpoint(start))
    return made


def batches(recipe: VoxtralRecipe, tokenizer: Path, pool: Mixture) -> Batches:
    text = load_tokenizer(tokenizer / TOKENIZER)
    return Batches(pool, word_tokens(text, recipe.words), recipe)


def export(folder: Path, tokenizer: Path, trained: VoxtralTask) -> str:
    shutil.copyfile(tokenizer / TOKENIZER, folder / TOKENIZER)
    return save_checkpoint(folder, trained.trainee.model)


def transcripts(
    checkpoint: Path, clips: list[EvalClip]
) -> Iterator[tuple[str, dict[str, list[Word]]]]:
    """By PyTorch with each of the delays: a name, and the words of each clip."""
    model, text = load_checkpoint(checkpoint), load_tokenizer(checkpoint / TOKENIZER)
    for delay in VERIFIED_DELAYS:
        heard = {clip.name: transcribe(model, text, [clip.audio], delay)[0] for clip in clips}
        yield f"PyTorch, {round(1000 * delay * POSITION_SECONDS)} ms", heard


def find_heads(checkpoint: Path, clips: Sequence[Clip]) -> None:
    """Nothing: the model writes a marker where a word has ended."""


def fit_timing(traits: Traits, pairs: Sequence[Pair]) -> Traits:
    """``traits`` with the marker's offset, and how long words of so many letters last."""
    timing = dict(traits["word_timing"])
    late = np.median([pair.heard.end - pair.said.end for pair in pairs])
    timing["end_offset"] = round(timing["end_offset"] - float(late) / POSITION_SECONDS, 2)
    # Of words after a pause: inside a phrase, a word begins where the one before it ended.
    alone = [pair.said for pair in pairs if pair.pause >= timing["least_pause"]]
    letters = [len(word.text) for word in alone]
    slope, base = np.polyfit(letters, [word.end - word.start for word in alone], 1)
    timing["start_base"] = round(float(base), 3)
    timing["start_per_character"] = round(float(slope), 3)
    return {**traits, "word_timing": timing}
