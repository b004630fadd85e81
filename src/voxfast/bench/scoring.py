"""Scores of recognised words against words that are known.

A clip is a sequence of words; scores are pooled over clips, so a long clip counts for as many
words as it has.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from voxfast.bench.extras import need
from voxfast.models.scripts import split_words
from voxfast.timed import Word

__all__ = [
    "NORMALISATION",
    "Score",
    "TimeError",
    "TimedWord",
    "align",
    "character_error_rate",
    "differences",
    "normalise",
    "normalise_words",
    "score",
    "word_error_rate",
    "word_errors",
]

NORMALISATION = (
    "Unicode NFKC, lower case; letters, marks, digits and apostrophes inside words stay, "
    "everything else separates words; in scripts without spaces every character is a word; "
    "numbers and abbreviations are compared as they are written"
)


class TimedWord(Protocol):
    """One word without inner spaces; times in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


A = TypeVar("A", bound=TimedWord)
B = TypeVar("B", bound=TimedWord)


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


def normalise(text: str) -> str:
    """The words that are compared, separated by single spaces; see :data:`NORMALISATION`."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = []
    for i, character in enumerate(text):
        inside = 0 < i < len(text) - 1 and text[i - 1].isalnum() and text[i + 1].isalnum()
        is_word = unicodedata.category(character)[0] in "LMN"
        kept.append(character if is_word or (character == "'" and inside) else " ")
    return " ".join(" ".join(word.split()) for word in split_words("".join(kept)) if word.strip())


def normalise_words(words: Iterable[Word]) -> list[Word]:
    """The same for words with times; the parts of a word share its times."""
    return [replace(word, text=part) for word in words for part in normalise(word.text).split()]


def score(references: Sequence[Sequence[A]], hypotheses: Sequence[Sequence[B]]) -> Score:
    """Compare clips of reference words with as many clips of recognised words.

    Words are aligned by text alone (least edits); case counts, spaces around a word do not.

    Raises:
        ValueError: if the numbers of clips differ, if no reference has a word, or on a word
            that is empty or has spaces inside.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    correct: list[tuple[A, B]] = []
    errors = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        pairs, clip_errors = align(reference, hypothesis)
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
        [[Word(word, 0.0, 0.0) for word in text.split()] for text in references],
        [[Word(word, 0.0, 0.0) for word in text.split()] for text in hypotheses],
    ).word_error_rate


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Edits between two texts as they were written, and the number of reference words."""
    said, heard = (
        [Word(w, 0.0, 0.0) for w in normalise(t).split()] for t in (reference, hypothesis)
    )
    return align(said, heard)[1], len(said)


def differences(reference: str, hypothesis: str, context: int = 3) -> list[str]:
    """Where two texts differ: ``wait [five → nine] and go``, with some words around."""
    said, heard = normalise(reference).split(), normalise(hypothesis).split()
    if not said or not heard:
        return [f"[{' '.join(said)} → {' '.join(heard)}]"]
    found = []
    for chunk in need("jiwer").process_words(" ".join(said), " ".join(heard)).alignments[0]:
        if chunk.type == "equal":
            continue
        first, last = chunk.ref_start_idx, chunk.ref_end_idx
        words = " ".join(said[first:last])
        instead = " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
        before, after = said[max(0, first - context) : first], said[last : last + context]
        found.append(" ".join([*before, f"[{words} → {instead}]", *after]))
    return found


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Pooled character error rate of texts; the spaces between words are characters.

    Raises:
        ValueError: if no reference has a character.
    """
    errors, length = 0, sum(map(len, references))
    if length == 0:
        raise ValueError("the references hold no character, so there is no error rate")
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if not reference or not hypothesis:  # nothing for jiwer to align
            errors += len(reference) + len(hypothesis)
            continue
        found = need("jiwer").process_characters(reference, hypothesis)
        errors += found.substitutions + found.deletions + found.insertions
    return errors / length


def align(reference: Sequence[A], hypothesis: Sequence[B]) -> tuple[list[tuple[A, B]], int]:
    """The pairs of equal words, and the number of edits between the two clips.

    Raises:
        ValueError: on a word that is empty or has spaces inside.
    """
    reference_text, hypothesis_text = _text(reference), _text(hypothesis)
    if not reference or not hypothesis:  # nothing for jiwer to align
        return [], len(reference) + len(hypothesis)
    output = need("jiwer").process_words(reference_text, hypothesis_text)
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
