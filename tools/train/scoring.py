"""Word error rate, and how far the ends of the right words are from the truth."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .speech import Word

__all__ = ["Score", "align", "score"]


@dataclass(frozen=True)
class Score:
    """Errors over some clips.

    Attributes:
        words, errors: words that were said; substitutions, deletions and insertions.
        mean_error, bias, p95_error: seconds by which the ends of the words that were recognised
            differ from the truth (size, signed mean, 95th percentile of the size); None where
            no word was, or where the transcriber tells no times.
    """

    words: int
    errors: int
    mean_error: float | None = None
    bias: float | None = None
    p95_error: float | None = None

    @property
    def word_error_rate(self) -> float:
        return self.errors / max(self.words, 1)

    def __str__(self) -> str:
        if not self.words:
            return f"{self.errors} words where none was said"
        text = f"WER {self.word_error_rate:.2%} of {self.words} words"
        if self.mean_error is None or self.bias is None or self.p95_error is None:
            return text
        return (
            f"{text}; word ends {1e3 * self.mean_error:.0f} ms mean, "
            f"{1e3 * self.p95_error:.0f} ms p95, {1e3 * self.bias:+.0f} ms bias"
        )


def align(truth: Sequence[str], heard: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
    """Levenshtein distance in words, and the pairs (place in truth, in heard) that match."""
    # cost[i, j] is the distance of the rests truth[i:] and heard[j:].
    cost = np.zeros((len(truth) + 1, len(heard) + 1), np.int64)
    cost[:, -1] = np.arange(len(truth), -1, -1)
    cost[-1, :] = np.arange(len(heard), -1, -1)
    for i in reversed(range(len(truth))):
        for j in reversed(range(len(heard))):
            substituted = cost[i + 1, j + 1] + (truth[i] != heard[j])
            cost[i, j] = min(substituted, cost[i + 1, j] + 1, cost[i, j + 1] + 1)
    matches = []
    i = j = 0
    while i < len(truth) and j < len(heard):
        if truth[i] == heard[j] and cost[i, j] == cost[i + 1, j + 1]:
            matches.append((i, j))
            i, j = i + 1, j + 1
        elif cost[i, j] == cost[i + 1, j + 1] + 1:
            i, j = i + 1, j + 1
        elif cost[i, j] == cost[i + 1, j] + 1:
            i += 1
        else:
            j += 1
    return int(cost[0, 0]), matches


def score(pairs: Iterable[tuple[Sequence[Word], Sequence[Word]]]) -> Score:
    """Scores (truth, heard) pairs, one per clip."""
    words = errors = 0
    late: list[float] = []
    for truth, heard in pairs:
        wrong, matches = align([word.text for word in truth], [word.text for word in heard])
        words += len(truth)
        errors += wrong
        late += [heard[j].end - truth[i].end for i, j in matches if not math.isnan(heard[j].end)]
    if not late:
        return Score(words, errors)
    sizes = np.abs(late)
    return Score(
        words,
        errors,
        mean_error=float(sizes.mean()),
        bias=float(np.mean(late)),
        p95_error=float(np.percentile(sizes, 95)),
    )
