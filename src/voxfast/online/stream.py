"""A live stream of any model: its contract, and the half that all of them share."""

from collections import deque
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.online.clock import Clock
from voxfast.timed import Word

__all__ = ["QueuedStream", "SampleQueue", "Stream"]


class Stream(Protocol):
    """What a session needs of a model's stream, which every family has one of.

    Methods are called on the owner thread, properties from any; all but ``step`` are cheap. An
    ``end_`` method that is called twice does no more than once.
    """

    words: list[Word]

    def push(self, samples: NDArray[np.float32]) -> None: ...
    def skip(self, seconds: float) -> None: ...
    def end_utterance(self) -> None: ...
    def end_stream(self) -> None: ...
    def step(self) -> None: ...
    @property
    def due(self) -> bool: ...
    @property
    def heard(self) -> float: ...
    @property
    def processed(self) -> float: ...
    @property
    def lag(self) -> float: ...
    @property
    def tentative(self) -> str: ...
    @property
    def language(self) -> str | None: ...


class QueuedStream:
    """The part of a stream that properties read from any thread, under its lock.

    Attributes:
        words: committed words that nobody has fetched yet.
    """

    def __init__(self) -> None:
        self._clock = Clock(SAMPLE_RATE)
        self._queue = SampleQueue()
        self._taken = 0  # samples that steps have taken
        self._lock = Lock()
        self.words: list[Word] = []

    def push(self, samples: NDArray[np.float32]) -> None:
        """Queue real audio."""
        with self._lock:
            self._queue.put(samples)
            self._clock.insert(len(samples))

    def skip(self, seconds: float) -> None:
        """Note a pause of the real audio that is not inserted."""
        with self._lock:
            self._clock.skip(seconds)

    @property
    def heard(self) -> float:
        """Seconds of real audio inserted so far, pauses included."""
        with self._lock:
            return self._clock.now

    @property
    def processed(self) -> float:
        """Seconds of real audio that the model has consumed."""
        with self._lock:
            return self._clock.real(self._taken)

    @property
    def lag(self) -> float:
        """Seconds of audio that wait to be processed."""
        with self._lock:
            return len(self._queue) / SAMPLE_RATE

    def _pad(self, n_samples: int) -> None:
        """Queue silence that is not in the real audio; the lock must be held."""
        self._queue.put(np.zeros(n_samples, np.float32))
        self._clock.pad(n_samples)

    def _take(self, size: int) -> NDArray[np.float32]:
        """The oldest samples of the queue; the lock must be held."""
        self._taken += size
        return self._queue.take(size)


class SampleQueue:
    """First in, first out; inserting and taking cost what is inserted and taken.

    Chunks are kept as they came, so neither tiny nor huge ones are copied more than once.
    """

    def __init__(self) -> None:
        self._chunks: deque[NDArray[np.float32]] = deque()
        self._taken = 0  # samples of the first chunk that are gone
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples; the array must not be written to afterwards."""
        if len(samples):
            self._chunks.append(samples)
            self._size += len(samples)

    def take(self, count: int) -> NDArray[np.float32]:
        """Remove and return the oldest ``count`` samples; there must be as many."""
        if count > self._size:
            raise IndexError(f"{count} samples wanted, {self._size} there")
        parts = []
        wanted = count
        while wanted:
            chunk = self._chunks[0]
            part = chunk[self._taken : self._taken + wanted]
            parts.append(part)
            wanted -= len(part)
            self._taken += len(part)
            if self._taken == len(chunk):
                self._chunks.popleft()
                self._taken = 0
        self._size -= count
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
