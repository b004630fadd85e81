"""A queue of audio samples."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleQueue"]


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
