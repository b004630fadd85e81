"""What the steps of a run do for qwen3-asr-numbers."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from ..calibrate import Pair, Traits
from ..clips import Clip
from ..evalset import EvalClip
from ..pool import Mixture, Pool
from ..speech import SAMPLE_RATE, Word
from .batches import Batches
from .checkpoint import HEADS, load_checkpoint, save_checkpoint
from .config import ModelConfig, QwenRecipe, Shape
from .task import QwenTask, transcribe
from .tokenizer import FILES, Tokenizer, write_tokenizer

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

Recipe = QwenRecipe
RECIPE = QwenRecipe(steps=7000)
SMOKE = QwenRecipe(
    steps=6, hours=0.001, shard_seconds=8, threads=1, compile=False, calibration_clips=4,
    speaker_clips=1, warm_up=5,
    shapes=(Shape(2, 3, 128, 40), Shape(2, 4, 128, 40), Shape(1, 6, 160, 60)),
    dev_clips=2, dev_seconds=3, short_clips=3, long_seconds=10,
)  # fmt: skip
TRAITS: Traits = {
    "description": "a demonstration that knows 71 English words (numbers, units, simple commands) "
    "and nothing else; for real speech: qwen3-asr-0.6b",
    "demo": True,
    "least_probability": 0.0,
    "attention_timing": {"start_lead": 0.22, "end_trail": 0.15},
}
LONGEST = 30  # seconds that are transcribed at once


def tokenizer(folder: Path, _: QwenRecipe) -> str:
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


def find_heads(checkpoint: Path, clips: Sequence[Clip]) -> None:
    """Writes alignment_heads.json, measured by ``voxfast align-heads`` on the ``clips``."""
    with tempfile.TemporaryDirectory() as folder:
        items = []
        for number, clip in enumerate(clip for clip in clips if clip.words):
            name = f"{number:03d}.wav"
            soundfile.write(f"{folder}/{name}", clip.audio, SAMPLE_RATE)
            words = [{"word": text, "start": a, "end": b} for text, a, b in clip.words]
            text = " ".join(word.text for word in clip.words)
            items.append({"file": name, "text": text, "words": words})
        path = Path(folder) / "clips.json"
        path.write_text(json.dumps({"items": items}), encoding="utf-8")
        command = [sys.executable, "-m", "voxfast", "align-heads", str(path)]
        measured = Path(folder) / HEADS
        command += ["--model", str(checkpoint), "--language", "en", "--output", str(measured)]
        subprocess.run(command, check=True)
        # The timing is fitted to all clips by fit_timing, and belongs into voxfast.json.
        lines = measured.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = (line for line in lines if '"attention_timing' not in line)
        (checkpoint / HEADS).write_text("".join(kept), encoding="utf-8")


def fit_timing(traits: Traits, pairs: Sequence[Pair]) -> Traits:
    """``traits`` with how far a word reaches around what its tokens attend to."""
    timing = dict(traits["attention_timing"])
    late = np.median([pair.heard.start - pair.said.start for pair in pairs])
    early = np.median([pair.said.end - pair.heard.end for pair in pairs])
    timing["start_lead"] = round(timing["start_lead"] + float(late), 3)
    timing["end_trail"] = round(timing["end_trail"] + float(early), 3)
    return {**traits, "attention_timing": timing}
