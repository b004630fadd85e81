"""The recordings under tests/data and what is known of them, for tests and benches."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

__all__ = [
    "DATA_FOLDER",
    "EVAL_FOLDER",
    "QWEN_FOLDER",
    "REAL_FOLDER",
    "VOXTRAL_FOLDER",
    "EvalItem",
    "EvalWord",
    "load_eval_items",
    "load_qwen_tokens",
    "load_voxtral_tokens",
]

DATA_FOLDER = Path(__file__).parent / "data"
EVAL_FOLDER = DATA_FOLDER / "eval"
REAL_FOLDER = DATA_FOLDER / "real"
QWEN_FOLDER = DATA_FOLDER / "qwen3-asr-numbers"
VOXTRAL_FOLDER = (
    Path(__file__).parent.parent / "src" / "voxfast" / "checkpoints" / "voxtral-numbers"
)


@dataclass(frozen=True, slots=True)
class EvalWord:
    """A spoken word without spaces; times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class EvalItem:
    """A clip and what is said in it.

    Attributes:
        path: FLAC, 16 kHz, mono.
        duration: seconds.
        transcript: the words, separated by single spaces.
        words: the same with their times.
    """

    path: Path
    duration: float
    transcript: str
    words: tuple[EvalWord, ...]

    @property
    def name(self) -> str:
        """File name without suffix: ``eval_00`` … ``eval_39``, ``eval_long_180s``."""
        return self.path.stem

    @cached_property
    def audio(self) -> NDArray[np.float32]:
        """Samples [N], float32 in -1 … 1, read on first use."""
        samples: NDArray[np.float32]
        samples, sample_rate = soundfile.read(self.path, dtype="float32")
        if sample_rate != 16000:
            raise ValueError(f"{self.path} has {sample_rate} samples per second, not 16000")
        return samples


def load_eval_items() -> list[EvalItem]:
    """The 40 short clips, then the one of 180 s."""
    return [
        EvalItem(
            path=EVAL_FOLDER / item["file"],
            duration=item["duration"],
            transcript=item["transcript"],
            words=tuple(EvalWord(w["word"], w["start"], w["end"]) for w in item["words"]),
        )
        for item in json.loads((EVAL_FOLDER / "eval.json").read_text())["items"]
    ]


def load_voxtral_tokens() -> dict[int, dict[str, list[int]]]:
    """Greedy tokens of voxtral-numbers by delay in positions and name of the clip."""
    tokens = json.loads((EVAL_FOLDER / "voxtral_tokens.json").read_text())["tokens"]
    return {
        int(delay): {Path(file).stem: ids for file, ids in by_file.items()}
        for delay, by_file in tokens.items()
    }


def load_qwen_tokens() -> dict[str, dict[str, list[int]]]:
    """Greedy tokens of qwen3-asr-numbers, language "detected" or "English", by name of the clip."""
    tokens = json.loads((EVAL_FOLDER / "qwen_tokens.json").read_text())["tokens"]
    return {
        language: {Path(file).stem: ids for file, ids in by_file.items()}
        for language, by_file in tokens.items()
    }
