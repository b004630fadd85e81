"""What an exported checkpoint transcribes: by PyTorch, and by voxfast where it is installed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoint import TOKENIZER, load_checkpoint
from .decode import transcribe
from .evalset import EvalClip, read_eval_set
from .scoring import Score, score
from .speech import Word
from .stream import POSITION_SECONDS
from .tokenizer import load_tokenizer

__all__ = ["verify"]

LONG = 60  # seconds; longer clips are reported apart
VOXFAST_DELAY = 6

Heard = dict[str, list[Word]]


def verify(checkpoint: Path, evaluation: Path, results: Path, delays: Sequence[int]) -> None:
    """Transcribes the evaluation set with each of the ``delays``, prints and writes the scores."""
    clips = list(read_eval_set(evaluation))
    scores: dict[str, dict[str, object]] = {}
    by_delay = {delay: _by_torch(checkpoint, clips, delay) for delay in delays}
    for delay, heard in by_delay.items():
        milliseconds = round(1000 * delay * POSITION_SECONDS)
        scores[f"torch, {milliseconds} ms"] = _report(f"PyTorch, {milliseconds} ms", clips, heard)
    by_voxfast = _by_voxfast(checkpoint, evaluation, clips)
    if by_voxfast is not None:
        scores["voxfast"] = _report("voxfast, 480 ms", clips, by_voxfast)
        if VOXFAST_DELAY in by_delay:
            _compare(by_delay[VOXFAST_DELAY], by_voxfast)
    results.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def _by_torch(checkpoint: Path, clips: Iterable[EvalClip], delay: int) -> Heard:
    model = load_checkpoint(checkpoint)
    tokenizer = load_tokenizer(checkpoint / TOKENIZER)
    return {c.name: transcribe(model, tokenizer, [c.audio], delay)[0] for c in clips}


def _by_voxfast(checkpoint: Path, evaluation: Path, clips: Iterable[EvalClip]) -> Heard | None:
    try:
        voxfast: Any = import_module("voxfast")
    except ImportError as error:
        print(f"  voxfast: left out ({error})")
        return None
    model = voxfast.load(str(checkpoint))
    heard = {}
    for clip in clips:
        words = voxfast.transcribe(str(evaluation / clip.name), model=model).words
        heard[clip.name] = [Word(word.text.strip(), word.start, word.end) for word in words]
    return heard


def _report(name: str, clips: Sequence[EvalClip], heard: Heard) -> dict[str, object]:
    """Prints the scores of the short and of the long clips."""
    report: dict[str, object] = {}
    for kind in ("short", "long"):
        chosen = [c for c in clips if (len(c.audio) > LONG * 16000) == (kind == "long")]
        if chosen:
            result: Score = score((clip.words, heard[clip.name]) for clip in chosen)
            print(f"  {name}, {len(chosen)} {kind}: {result}", flush=True)
            report[kind] = {**asdict(result), "wer": result.word_error_rate}
    return report


def _compare(by_torch: Heard, by_voxfast: Heard) -> None:
    """Prints in how many files voxfast's words are the reference's."""
    texts = [
        ([word.text for word in by_torch[name]], [word.text for word in by_voxfast[name]])
        for name in by_torch
    ]
    same = sum(one == other for one, other in texts)
    print(f"  voxfast gives the same words as PyTorch in {same} of {len(texts)} files")
