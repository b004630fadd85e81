"""Scores of recognised words against words whose times are known.

Used by the tests and the benches. A clip is a sequence of words; scores are pooled over
clips, so a long clip counts for as many words as it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jiwer
import numpy as np

__all__ = ["Score", "TimeError", "TimedWord", "score", "word_error_rate"]


class TimedWord(Protocol):
    """One word without inner spaces; times in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


@dataclass(frozen=True, slots=True)
class TimeError:
    """Hypothesis minus reference, seconds, over correctly recognised words; NaN if none.

    Attributes:
        mean_absolute: mean of the errors' sizes.
        bias: mean error; positive means late.
        percentile_95: 95th percentile of the errors' sizes.
    """

    mean_absolute: float
    bias: float
    percentile_95: float


@dataclass(frozen=True, slots=True)
class Score:
    """Attributes:
    word_error_rate: (substitutions + deletions + insertions) / n_words.
    n_words: words in the references.
    n_correct: words that were recognised, and over which the times are compared.
    start, end: errors of their starts and ends.
    """

    word_error_rate: float
    n_words: int
    n_correct: int
    start: TimeError
    end: TimeError


def score(
    references: Sequence[Sequence[TimedWord]], hypotheses: Sequence[Sequence[TimedWord]]
) -> Score:
    """Compare clips of reference words with as many clips of recognised words.

    Words are aligned by text alone (least edits); case counts, spaces around a word do not.

    Raises:
        ValueError: if the numbers of clips differ, if no reference has a word, or on a word
            that is empty or has spaces inside.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    correct: list[tuple[TimedWord, TimedWord]] = []
    errors = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        pairs, clip_errors = _align(reference, hypothesis)
        correct += pairs
        errors += clip_errors
    n_words = sum(map(len, references))
    if n_words == 0:
        raise ValueError("the references hold no word, so there is no word error rate")
    return Score(
        word_error_rate=errors / n_words,
        n_words=n_words,
        n_correct=len(correct),
        start=_time_error([found.start - true.start for true, found in correct]),
        end=_time_error([found.end - true.end for true, found in correct]),
    )


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Pooled word error rate of texts, for words without times.

    Raises:
        ValueError: as for :func:`score`.
    """
    return score(
        [[_Untimed(word) for word in text.split()] for text in references],
        [[_Untimed(word) for word in text.split()] for text in hypotheses],
    ).word_error_rate


@dataclass(frozen=True, slots=True)
class _Untimed:
    text: str
    start: float = 0.0
    end: float = 0.0


def _align(
    reference: Sequence[TimedWord], hypothesis: Sequence[TimedWord]
) -> tuple[list[tuple[TimedWord, TimedWord]], int]:
    """The pairs of equal words, and the number of edits between the two clips."""
    reference_text, hypothesis_text = _text(reference), _text(hypothesis)
    if not reference or not hypothesis:  # nothing for jiwer to align
        return [], len(reference) + len(hypothesis)
    output = jiwer.process_words(reference_text, hypothesis_text)
    pairs = [
        (reference[chunk.ref_start_idx + i], hypothesis[chunk.hyp_start_idx + i])
        for chunk in output.alignments[0]
        if chunk.type == "equal"
        for i in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    return pairs, output.substitutions + output.deletions + output.insertions


def _text(words: Sequence[TimedWord]) -> str:
    for word in words:
        if len(word.text.split()) != 1:
            raise ValueError(f"a word must have no spaces inside and not be empty: {word.text!r}")
    return " ".join(word.text.strip() for word in words)


def _time_error(errors: Sequence[float]) -> TimeError:
    if not errors:
        return TimeError(np.nan, np.nan, np.nan)
    sizes = np.abs(errors)
    return TimeError(
        mean_absolute=float(sizes.mean()),
        bias=float(np.mean(errors)),
        percentile_95=float(np.percentile(sizes, 95)),
    )
