"""Figures of a run, from its records."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from voxfast.bench.journal import Run
from voxfast.bench.measure import Record, ShownWord
from voxfast.bench.scoring import (
    NORMALISATION,
    align,
    character_error_rate,
    normalise,
    normalise_words,
    score,
    word_error_rate,
)
from voxfast.timed import Word

__all__ = ["count", "label", "latencies", "summarise"]

WORST = 10


def summarise(run: Run) -> dict[str, Any]:
    """All figures of a run; None where there is nothing to compute one of.

    Returns:
        plain data: ``seconds``, ``compute_seconds``, ``real_time_factor``; error rates over
        everything (``word_error_rate``, ``character_error_rate``) and per utterance
        (``per_utterance``); the ``worst`` utterances; ``latency``; ``word_times``, errors
        where the times are known; ``step_ms`` and ``memory_mb``.
    """
    records = run.records
    seconds = sum(record.seconds for record in records)
    compute = sum(record.compute_seconds for record in records)
    return {
        "normalisation": NORMALISATION,
        "streams": len(records),
        "seconds": round(seconds, 3),
        "compute_seconds": round(compute, 3),
        "real_time_factor": compute / seconds if seconds else None,
        **_errors(records),
        "latency": _latency(records),
        "word_times": _word_times(records),
        **_steps(records),
    }


def label(run: Run, others: Sequence[Run] = ()) -> str:
    """A short name of a run: its model, and what is different in others."""
    name = str(run.model["name"])
    words = [_last(name)]
    if any(
        _last(other.model["name"]) == words[0] for other in others if other.model["name"] != name
    ):
        words = [name]
    for part, shown in _SHOWN.items():
        for key, text in shown.items():
            value = _part(run, part).get(key)
            theirs = [_part(other, part).get(key) for other in others]
            if key == "chunk_ms":  # everything at once has none, and its mode says so
                theirs = [chunk for chunk in theirs if chunk is not None]
            if value is not None and any(other != value for other in theirs):
                words.append(text(value))
    return ", ".join(words)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _part(run: Run, part: str) -> dict[str, Any]:
    found: dict[str, Any] = run.options if part == "options" else run.setting.get(part, {})
    return found


def count(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}{'s' * (number != 1)}"


_SHOWN: dict[str, dict[str, Callable[[Any], str]]] = {
    "options": {
        "mode": str,
        "chunk_ms": "{} ms chunks".format,
        "delay_ms": "{} ms delay".format,
        "dtype": str,
        "kv_bits": "keys and values in {} bits".format,
        "language": str,
    },
    "dataset": {"name": str, "clips": lambda clips: count(clips, "clip")},
    "machine": {
        "processor": str,
        "threads": lambda threads: count(threads, "thread"),
        "kernels": str,
        "device": str,
    },
    "versions": {"voxfast": "voxfast {}".format, "mlx": "mlx {}".format},
    "environment": {"VOXFAST_NATIVE": "VOXFAST_NATIVE={}".format},
}
"""What a label may hold, of the options and of the setting of a run."""


def latencies(records: Sequence[Record], *, aware: bool) -> list[float]:
    """Seconds from the end of a word to its appearance, without words that the end of the
    audio brought out: in a longer stream they would have appeared later.

    The end is the true one where it is known, of words that were recognised; elsewhere the
    one that the model gave.
    """
    found = []
    for record in records:
        for end, word in _ends(record):
            at = word.shown if aware else word.fed
            if at is not None:
                found.append(at - end)
    return found


def _ends(record: Record) -> list[tuple[float, ShownWord]]:
    """Recognised words with their ends."""
    if record.truth is None:
        return [(word.end, word) for word in record.words]
    # Alignment is of the normalised words; each leads back to the word it is a part of.
    parts = [_Part(part, word) for word in record.words for part in normalise(word.text).split()]
    pairs, _ = align(normalise_words(record.truth), parts)
    return [(true.end, part.whole) for true, part in pairs]


class _Part:
    """A normalised part of a recognised word."""

    def __init__(self, text: str, whole: ShownWord) -> None:
        self.text, self.whole = text, whole
        self.start, self.end = whole.start, whole.end


def _errors(records: Sequence[Record]) -> dict[str, Any]:
    pairs = [(r, normalise(r.reference), normalise(r.hypothesis)) for r in records]
    spoken = [pair for pair in pairs if pair[1]]
    if not spoken:
        return {
            "word_error_rate": None,
            "character_error_rate": None,
            "words": 0,
            "per_utterance": None,
            "worst": [],
        }
    said, heard = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
    each = [(word_error_rate([pair[1]], [pair[2]]), pair[0]) for pair in spoken]
    rates = [rate for rate, _ in each]
    worst = sorted((entry for entry in each if entry[0] > 0), key=lambda entry: -entry[0])
    return {
        "word_error_rate": word_error_rate(said, heard),
        "character_error_rate": character_error_rate(said, heard),
        "words": sum(len(text.split()) for text in said),
        "per_utterance": _spread(rates) | {"without_error": rates.count(0.0) / len(rates)},
        "worst": [
            {
                "name": record.name,
                "word_error_rate": rate,
                "reference": record.reference,
                "hypothesis": record.hypothesis,
            }
            for rate, record in worst[:WORST]
        ],
    }


def _latency(records: Sequence[Record]) -> dict[str, Any] | None:
    unaware, aware = latencies(records, aware=False), latencies(records, aware=True)
    if not unaware:
        return None
    known = sum(record.truth is not None for record in records)
    ends = "true" if known == len(records) else "the model's" if not known else "mixed"
    return {
        "ends": ends,
        "words": len(unaware),
        "unaware": _spread(unaware),
        "aware": _spread(aware),
    }


def _word_times(records: Sequence[Record]) -> dict[str, Any] | None:
    known: list[tuple[Sequence[Word], Sequence[Word]]] = [
        (normalise_words(record.truth), normalise_words(record.words))
        for record in records
        if record.truth
    ]
    if not known:
        return None
    found = score([true for true, _ in known], [words for _, words in known])
    if not found.n_correct:
        return None
    return {"words": found.n_correct, "start": asdict(found.start), "end": asdict(found.end)}


def _steps(records: Sequence[Record]) -> dict[str, Any]:
    steps = [step for record in records for step in record.steps]
    if not steps:
        return {"step_ms": None, "memory_mb": None}
    resident = [step.resident_mb for step in steps]
    return {
        "step_ms": _spread([step.mean_ms for step in steps])
        | {"longest": max(step.longest_ms for step in steps)},
        "memory_mb": {"first": resident[0], "last": resident[-1], "most": max(resident)},
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    assert not any(map(math.isnan, values))
    middle, high, higher = (float(x) for x in np.percentile(values, [50, 90, 95]))
    return {
        "mean": float(np.mean(values)),
        "median": middle,
        "percentile_90": high,
        "percentile_95": higher,
    }
