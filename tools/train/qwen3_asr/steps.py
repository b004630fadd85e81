"""What the steps of a run do for qwen3-asr-numbers."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..evalset import EvalClip
from ..pool import Mixture, Pool
from ..speech import SAMPLE_RATE, Word
from .batches import Batches
from .checkpoint import load_checkpoint, save_checkpoint
from .config import ModelConfig, QwenRecipe, Shape
from .task import QwenTask, transcribe
from .tokenizer import FILES, Tokenizer, write_tokenizer

__all__ = ["RECIPE", "SMOKE", "batches", "export", "task", "tokenizer", "transcripts"]

Recipe = QwenRecipe
RECIPE = QwenRecipe(steps=7000)
SMOKE = QwenRecipe(
    steps=6, hours=0.001, threads=1, compile=False, warm_up=5,
    shapes=(Shape(2, 3, 128, 40), Shape(2, 4, 128, 40), Shape(1, 6, 160, 60)),
    dev_clips=2, dev_seconds=3, short_clips=3, long_seconds=10,
)  # fmt: skip
LONGEST = 30  # seconds that are transcribed at once


def tokenizer(folder: Path) -> str:
    return f"{write_tokenizer(folder)} ids in use"


def task(
    recipe: QwenRecipe, tokenizer: Path, dev_pools: Mapping[str, Pool], start: Path | None
) -> QwenTask:
    text = Tokenizer(tokenizer)
    made = QwenTask(recipe, text, dev_pools)
    if start is not None:
        model = load_checkpoint(start, text, recipe.model)
        made.trainee.model.load_state_dict(model.state_dict())
    return made


def batches(recipe: QwenRecipe, tokenizer: Path, pool: Mixture) -> Batches:
    return Batches(pool, Tokenizer(tokenizer), recipe)


def export(folder: Path, tokenizer: Path, trained: QwenTask) -> str:
    for name in FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    return save_checkpoint(folder, trained.trainee.model, Tokenizer(tokenizer))


def transcripts(
    checkpoint: Path, clips: list[EvalClip]
) -> Iterator[tuple[str, dict[str, list[Word]]]]:
    """By PyTorch, the short clips alone: a name, and the words of each clip without times."""
    text = Tokenizer(checkpoint)
    model = load_checkpoint(checkpoint, text, ModelConfig())
    short = [clip for clip in clips if len(clip.audio) <= LONGEST * SAMPLE_RATE]
    yield "PyTorch", {clip.name: transcribe(model, text, [clip.audio])[0] for clip in short}
