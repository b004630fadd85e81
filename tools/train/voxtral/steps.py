"""What the steps of a run do for voxtral-numbers."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..evalset import EvalClip
from ..pool import Mixture, Pool
from ..speech import Word
from .batches import Batches
from .checkpoint import TOKENIZER, load_checkpoint, save_checkpoint
from .config import VoxtralRecipe
from .decode import transcribe
from .stream import POSITION_SECONDS
from .task import VoxtralTask
from .tokenizer import load_tokenizer, word_tokens, write_tokenizer

__all__ = ["RECIPE", "SMOKE", "batches", "export", "task", "tokenizer", "transcripts"]

Recipe = VoxtralRecipe
RECIPE = VoxtralRecipe()
SMOKE = VoxtralRecipe(
    steps=6, hours=0.001, threads=1, compile=False, batch=2, positions=100, warm_up=5,
    dev_clips=2, dev_seconds=3, short_clips=3, long_seconds=10,
)  # fmt: skip
VERIFIED_DELAYS = (3, 6, 12)


def tokenizer(folder: Path) -> str:
    return f"{write_tokenizer(folder / TOKENIZER)} tokens"


def task(
    recipe: VoxtralRecipe, tokenizer: Path, dev_pools: Mapping[str, Pool], start: Path | None
) -> VoxtralTask:
    made = VoxtralTask(recipe, load_tokenizer(tokenizer / TOKENIZER), dev_pools)
    if start is not None:
        made.trainee.model.load_state_dict(load_checkpoint(start).state_dict())
    return made


def batches(recipe: VoxtralRecipe, tokenizer: Path, pool: Mixture) -> Batches:
    return Batches(pool, word_tokens(load_tokenizer(tokenizer / TOKENIZER)), recipe)


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
