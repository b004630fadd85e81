"""Fits ``voxfast.json`` to a checkpoint: which words are left out, and where words begin and end.

It is fitted on clips of speakers that are neither trained on nor evaluated with, as a microphone
hears them, other words and noise among them; needs voxfast.
"""

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from .augment import Acoustics
from .clips import Clip, Noise, draw_scene
from .pool import Mixture
from .scoring import align
from .speech import Word

__all__ = ["Heard", "Pair", "best_threshold", "calibrate", "draw_calibration"]

TRAITS = "voxfast.json"
THRESHOLDS = np.arange(0, 0.96, 0.05)
SECONDS = 10.0
LEAST_PAIRS = 50  # right words, to fit a timing on


class Heard(NamedTuple):
    """A word that voxfast wrote; times in seconds."""

    text: str
    start: float
    end: float
    probability: float


class Pair(NamedTuple):
    """A word that was said, its pause before it in seconds, and what was heard of it."""

    said: Word
    pause: float
    heard: Heard


Traits = dict[str, Any]
Timing = Callable[[Traits, Sequence[Pair]], Traits]


def draw_calibration(pools: Mixture, clips: int, rng: Generator) -> list[Clip]:
    """Clips of 10 s with everything that training does to them."""
    noise = Noise()
    return [draw_scene(pools, SECONDS, Acoustics(), noise, rng) for _ in range(clips)]


def calibrate(checkpoint: Path, clips: Sequence[Clip], traits: Traits, timing: Timing) -> str:
    """Writes voxfast.json into the folder ``checkpoint``; returns a line about it.

    Args:
        traits: what is to stand there, with a timing to begin with.
        timing: gives the traits with the timing that fits the pairs.
    """
    path = checkpoint / TRAITS
    if not clips:
        _write(path, traits)
        return "nothing is fitted"
    _write(path, {**traits, "least_probability": 0.0})
    heard = _transcribe(checkpoint, clips)
    said = [clip.words for clip in clips]
    threshold, errors = best_threshold(said, heard)
    kept = [[word for word in words if word.probability >= threshold] for words in heard]
    fitted, pairs = {**traits, "least_probability": threshold}, _pairs(said, kept)
    line = f"least probability {threshold}: {errors} errors in {sum(map(len, said))} words"
    if len(pairs) < LEAST_PAIRS:
        line += f"; timing not fitted, because only {len(pairs)} words were right"
    else:
        fitted = timing(fitted, pairs)
    _write(path, fitted)
    return line


def best_threshold(
    said: Sequence[Sequence[Word]], heard: Sequence[Sequence[Heard]]
) -> tuple[float, int]:
    """The lowest probability with at most 1 % more word errors than the best one; its errors.

    The curve is flat there, and a word that was said and is left out is worse than one too many.
    """
    errors = []
    for threshold in THRESHOLDS:
        total = 0
        for truth, words in zip(said, heard, strict=True):
            kept = [word.text for word in words if word.probability >= threshold]
            total += align([word.text for word in truth], kept)[0]
        errors.append(total)
    best = int(np.flatnonzero(np.array(errors) <= 1.01 * min(errors))[0])
    return round(float(THRESHOLDS[best]), 2), errors[best]


def _pairs(said: Sequence[Sequence[Word]], heard: Sequence[Sequence[Heard]]) -> list[Pair]:
    pairs = []
    for truth, words in zip(said, heard, strict=True):
        ends = [0.0, *(word.end for word in truth)]
        _, matches = align([word.text for word in truth], [word.text for word in words])
        pairs += [Pair(truth[i], truth[i].start - ends[i], words[j]) for i, j in matches]
    return pairs


def _transcribe(checkpoint: Path, clips: Sequence[Clip]) -> list[list[Heard]]:
    voxfast: Any = import_module("voxfast")
    with voxfast.load(str(checkpoint)) as model:
        options = {} if model.delays_ms else {"language": "en"}
        return [
            [
                Heard(word.text.strip(), word.start, word.end, word.probability)
                for word in voxfast.transcribe(clip.audio, model=model, **options).words
            ]
            for clip in clips
        ]


def _write(path: Path, traits: Traits) -> None:
    path.write_text(json.dumps(traits, indent=2) + "\n", encoding="utf-8")
