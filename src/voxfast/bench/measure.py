"""Running one stream, and writing down what happened."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import mlx.core as mx
import numpy as np

from voxfast.audio import SAMPLE_RATE
from voxfast.bench.dataset import Stream
from voxfast.timed import Word

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from voxfast.model import Model

T = TypeVar("T", bound="DataclassInstance")

__all__ = ["Record", "ShownWord", "Step", "measure", "resident_mb"]


@dataclass(frozen=True, slots=True)
class ShownWord(Word):
    """A word, and when it appeared.

    Attributes:
        fed: seconds of audio that had been fed when it was committed; None if only the end
            of the audio brought it out.
        shown: the second at which it would have appeared had the audio been spoken live: a
            chunk arrives at its end, and is processed once those before it are.
    """

    fed: float | None = None
    shown: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The chunks of one second of a stream.

    Attributes:
        second: seconds of audio at its end.
        mean_ms, longest_ms: time that a chunk took.
        resident_mb: memory of the process; where the system does not tell, the most so far.
        mlx_mb: memory that MLX holds, with its cache, and with rows of rings not yet written to.
    """

    second: float
    mean_ms: float
    longest_ms: float
    resident_mb: float
    mlx_mb: float


@dataclass(frozen=True, slots=True)
class Record:
    """What one stream gave.

    Attributes:
        name: of the stream.
        seconds: of audio.
        compute_seconds: that the model took, without reading the files.
        reference, hypothesis: texts as they were written.
        truth: known words with their times, if they are.
        words: what was recognised.
        steps: time and memory over the stream; empty if it was fed at once.
    """

    name: str
    seconds: float
    compute_seconds: float
    reference: str
    hypothesis: str
    truth: tuple[Word, ...] | None
    words: tuple[ShownWord, ...]
    steps: tuple[Step, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From what :meth:`to_json` gave.

        Raises:
            KeyError, TypeError: if it did not.
        """
        truth = data["truth"]
        return _checked(
            cls,
            data
            | {
                "truth": None if truth is None else tuple(_checked(Word, word) for word in truth),
                "words": tuple(_checked(ShownWord, word) for word in data["words"]),
                "steps": tuple(_checked(Step, step) for step in data["steps"]),
            },
        )


def measure(
    model: "Model",
    stream: Stream,
    *,
    chunk_ms: int | None,
    now: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Record:
    """Transcribe one stream.

    Args:
        model: a loaded model.
        stream: what it is to hear.
        chunk_ms: milliseconds that it is fed at a time; None: everything at once.
        now: a clock, in seconds.
        **options: of the session.

    Raises:
        AudioFileError, VoxfastError: if the audio cannot be read, or the session failed.
    """
    samples, truth = stream.load()
    size = len(samples) if chunk_ms is None else chunk_ms * SAMPLE_RATE // 1000
    taken: list[ShownWord] = []
    watch = _Stopwatch(now)
    with model.session(**options) as session:
        for start in range(0, len(samples), size):
            chunk = samples[start : start + size]
            fed = (start + len(chunk)) / SAMPLE_RATE
            with watch.step(fed, new_chunk=True):
                words = session.feed(chunk)
            live = chunk_ms is not None
            taken += [_heard(w, fed, watch.clock) if live else _heard(w) for w in words]
        with watch.step(len(samples) / SAMPLE_RATE):
            words = session.finish()
        taken += [_heard(word) for word in words]
    return Record(
        name=stream.name,
        seconds=len(samples) / SAMPLE_RATE,
        compute_seconds=watch.busy,
        reference=stream.text,
        hypothesis="".join(word.text for word in taken).strip(),
        truth=truth,
        words=tuple(taken),
        steps=() if chunk_ms is None else watch.steps(),
    )


def _checked(kind: type[T], data: dict[str, Any]) -> T:
    """A dataclass from JSON; raises TypeError on a text or a finite number that is none."""
    if not isinstance(data, dict):
        raise TypeError(f"{data!r:.60} is no {kind.__name__}")
    for column in fields(kind):
        value, numeric = data.get(column.name), column.type in (float, float | None)
        if value is None and column.type == float | None:
            continue
        if column.type is str and not isinstance(value, str):
            raise TypeError(f"{column.name} is no text but {value!r:.60}")
        if numeric and not (isinstance(value, float | int) and math.isfinite(value)):
            raise TypeError(f"{column.name} is no number but {value!r:.60}")
    return kind(**data)


def resident_mb() -> float:
    """Memory of this process; where the system does not tell, the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text(encoding="ascii").split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if platform.system() == "Darwin" else 2**10)


def _heard(word: Word, fed: float | None = None, shown: float | None = None) -> ShownWord:
    return ShownWord(word.text, word.start, word.end, word.probability, fed, shown)


class _Stopwatch:
    """Times the steps of a stream, and tells when they would have ended live."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.busy = 0.0  # seconds in all
        self.clock = 0.0  # second of the live stream at which the last step ended
        self._arrival = 0.0  # seconds of audio so far
        self._chunks: list[float] = []  # milliseconds, of the second in progress
        self._steps: list[Step] = []

    @contextmanager
    def step(self, arrival: float, *, new_chunk: bool = False) -> Iterator[None]:
        """Time a step over audio of which the last arrives at ``arrival`` seconds."""
        start = self._now()
        yield
        elapsed = self._now() - start
        self.busy += elapsed
        self.clock = max(self.clock, arrival) + elapsed
        self._arrival = arrival
        if new_chunk:
            self._chunks.append(1000 * elapsed)
            if arrival >= (self._steps[-1].second if self._steps else 0.0) + 1.0:
                self._close(arrival)

    def steps(self) -> tuple[Step, ...]:
        """One for each second, and one for the rest."""
        if self._chunks:
            self._close(self._arrival)
        return tuple(self._steps)

    def _close(self, second: float) -> None:
        held = mx.get_active_memory() + mx.get_cache_memory()
        self._steps.append(
            Step(
                second=round(second, 3),
                mean_ms=float(np.mean(self._chunks)),
                longest_ms=max(self._chunks),
                resident_mb=resident_mb(),
                mlx_mb=held / 2**20,
            )
        )
        self._chunks.clear()
