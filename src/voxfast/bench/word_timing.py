"""How far words reach around the audio that their tokens attend to.

Measured where the edges of words are known: from the times that a data set gives, or, without
them, from the pauses that the voice detector finds. Behind a pause a word begins with the speech,
before one it ends with it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxfast.bench.attended import POSITION_SECONDS, AttendedClip, AttendedWord
from voxfast.models.traits import AttentionTiming

__all__ = ["TimingScores", "measure_timing"]

LEAST_EDGES = 10  # of words, to measure a margin on
GAP = 0.05  # seconds; words closer together than this touch
# How late the detector begins and ends a span, in seconds: medians on the evaluation clips and on
# three other synthesisers whose word times are known, 0.00 to 0.04 and 0.04 to 0.08.
LATE_START, LATE_END = 0.02, 0.06
CLIP_EDGE = 0.1  # seconds at either end of a clip where speech may have been cut off


@dataclass(frozen=True)
class TimingScores:
    """What was measured.

    Attributes:
        timing: medians, in seconds.
        n_starts, n_ends: words that they are the medians of.
        source: where the edges of words are known from.
    """

    timing: AttentionTiming
    n_starts: int
    n_ends: int
    source: str

    def as_json(self) -> dict[str, Any]:
        """The part of ``alignment_heads.json`` about it."""
        return {
            "attention_timing": {
                "start_lead": self.timing.start_lead,
                "end_trail": self.timing.end_trail,
            },
            "attention_timing_measured": f"from {self.source}: {self.n_starts} starts and "
            f"{self.n_ends} ends of words",
        }


@dataclass(frozen=True)
class _Edges:
    """A recognised word, and its start and end in seconds; NaN where they are not known."""

    word: AttendedWord
    start: float
    end: float


def measure_timing(
    clips: Sequence[AttendedClip], heads: Sequence[tuple[int, int]]
) -> TimingScores | None:
    """Measure the margins of words around what their tokens attend to.

    Args:
        clips: all with the times of their words, or all without.
        heads: (layer, head), those that sessions use.

    Returns:
        None if fewer than 10 starts or ends of words are known.
    """
    is_timed = not any(math.isnan(word.start) for clip in clips for word in clip.spoken)
    find = _edges_of_words if is_timed else _edges_of_speech
    edges = [edge for clip in clips for edge in find(clip, heads)]
    leads = [_attended(edge.word.first, heads) - edge.start for edge in edges]
    trails = [edge.end - _attended(edge.word.last, heads) for edge in edges]
    lead, trail = np.array(leads), np.array(trails)
    lead, trail = lead[~np.isnan(lead)], trail[~np.isnan(trail)]
    if min(len(lead), len(trail)) < LEAST_EDGES:
        return None
    timing = AttentionTiming(round(float(np.median(lead)), 3), round(float(np.median(trail)), 3))
    source = "times of words" if is_timed else "pauses that the voice detector found"
    return TimingScores(timing, len(lead), len(trail), source)


def _edges_of_words(clip: AttendedClip, heads: Sequence[tuple[int, int]]) -> Iterator[_Edges]:
    """The times that are given. A start that touches the word before is none: sessions begin a
    word no earlier than that one ends, whatever the margin."""
    before = [-math.inf, *(word.end for word in clip.spoken)]
    for word in clip.words:
        if word.spoken is not None:
            said = clip.spoken[word.spoken]
            is_free = said.start - before[word.spoken] > GAP
            yield _Edges(word, said.start if is_free else math.nan, said.end)


def _edges_of_speech(clip: AttendedClip, heads: Sequence[tuple[int, int]]) -> Iterator[_Edges]:
    """The first and the last word of each span of speech."""
    for span in clip.spans:
        inside = [word for word in clip.words if span.start <= _middle(word, heads) <= span.end]
        if not inside:
            continue
        first, last = inside[0], inside[-1]
        if first.spoken is not None and span.start > CLIP_EDGE:
            yield _Edges(first, span.start - LATE_START, math.nan)
        if last.spoken is not None and span.end < clip.seconds - CLIP_EDGE:
            yield _Edges(last, math.nan, span.end - LATE_END)


def _attended(seconds: NDArray[np.float64], heads: Sequence[tuple[int, int]]) -> float:
    """The second at which the attended audio begins: the median, as sessions take it."""
    return float(sorted(seconds[head] for head in heads)[len(heads) // 2])


def _middle(word: AttendedWord, heads: Sequence[tuple[int, int]]) -> float:
    first, last = _attended(word.first, heads), _attended(word.last, heads)
    return (first + last + POSITION_SECONDS) / 2
