"""What every live stream has: a queue of samples, a clock, and words that wait to be fetched."""

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.online.clock import Clock
from voxfast.online.samples import SampleQueue
from voxfast.timed import Word

__all__ = ["QueuedStream"]


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
