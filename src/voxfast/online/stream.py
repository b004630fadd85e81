"""A live stream of any model: its contract, and the half that all of them share."""

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.online.clock import Clock
from voxfast.timed import Word

__all__ = ["QueuedStream", "SampleQueue", "Stream"]


class Stream(Protocol):
    """What a session needs of a model's stream, which every family has one of.

    Methods are called on the owner thread, and so is ``due``; the other properties are read from
    any. All but ``step`` are cheap. An ``end_`` method that is called twice does no more than
    once.
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
    """The half that all streams share: the queue of samples, and the clock.

    Only the owner thread changes a stream, so it needs no lock: what other threads read is a
    single attribute that is assigned once it is known.

    Attributes:
        words: committed words that nobody has fetched yet.
        heard: seconds of real audio inserted so far, pauses included.
        processed: seconds of real audio that the model has consumed.
        lag: seconds of audio that wait to be processed.
    """

    def __init__(self) -> None:
        self._clock = Clock(SAMPLE_RATE)
        self._queue = SampleQueue()
        self._taken = 0  # samples that steps have taken
        self.words: list[Word] = []
        self.heard = self.processed = self.lag = 0.0

    def push(self, samples: NDArray[np.float32]) -> None:
        """Queue real audio."""
        self._queue.put(samples)
        self._clock.insert(len(samples))
        self._note()

    def skip(self, seconds: float) -> None:
        """Note a pause of the real audio that is not inserted."""
        self._clock.skip(seconds)
        self._note()

    def _pad(self, n_samples: int) -> None:
        """Queue silence that is not in the real audio."""
        self._queue.put(np.zeros(n_samples, np.float32))
        self._clock.pad(n_samples)
        self._note()

    def _take(self, size: int) -> NDArray[np.float32]:
        """The oldest samples of the queue."""
        samples = self._queue.take(size)
        self._taken += size
        self._note()
        return samples

    def _note(self) -> None:
        self.heard = self._clock.now
        self.processed = self._clock.real(self._taken)
        self.lag = len(self._queue) / SAMPLE_RATE


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
