"""What an exported checkpoint transcribes: by PyTorch, and by voxfast where it is installed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from .evalset import EvalClip
from .scoring import score
from .speech import SAMPLE_RATE, Word

__all__ = ["verify"]

LONG = 60  # seconds; longer clips are reported apart

Heard = dict[str, list[Word]]


def verify(
    by_torch: Iterable[tuple[str, Heard]],
    checkpoint: Path,
    evaluation: Path,
    clips: Sequence[EvalClip],
    results: Path,
) -> None:
    """Prints and writes the scores of each transcriber on the evaluation set."""
    found = dict(by_torch)
    voxfast = _by_voxfast(checkpoint, evaluation, clips)
    if voxfast is not None:
        found["voxfast"] = voxfast
        for name, heard in found.items():
            if name != "voxfast":
                same = sum(
                    [w.text for w in heard[clip]] == [w.text for w in voxfast[clip]]
                    for clip in heard
                )
                print(f"  voxfast gives the words of {name} in {same} of {len(heard)} files")
    scores = {name: _report(name, clips, heard) for name, heard in found.items()}
    results.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def _by_voxfast(checkpoint: Path, evaluation: Path, clips: Sequence[EvalClip]) -> Heard | None:
    try:
        voxfast: Any = import_module("voxfast")
    except ImportError as error:
        print(f"  voxfast: left out ({error})")
        return None
    model = voxfast.load(str(checkpoint))
    options = {} if model.delays_ms else {"language": "en"}
    heard = {}
    for clip in clips:
        words = voxfast.transcribe(str(evaluation / clip.name), model=model, **options).words
        heard[clip.name] = [Word(word.text.strip(), word.start, word.end) for word in words]
    return heard


def _report(name: str, clips: Sequence[EvalClip], heard: Heard) -> dict[str, object]:
    """Prints the scores of the short and of the long clips."""
    report: dict[str, object] = {}
    for kind in ("short", "long"):
        chosen = [
            clip
            for clip in clips
            if clip.name in heard and (len(clip.audio) > LONG * SAMPLE_RATE) == (kind == "long")
        ]
        if chosen:
            result = score((clip.words, heard[clip.name]) for clip in chosen)
            print(f"  {name}, {len(chosen)} {kind}: {result}", flush=True)
            report[kind] = {**asdict(result), "wer": result.word_error_rate}
    return report
