"""The interface of a model's stream, and the base that all streams share."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.online.clock import Clock
from voxfast.timed import Word

__all__ = ["QueuedStream", "SampleQueue", "Stream"]


class Stream(Protocol):
    """The interface of a stream that a session needs; every family has one.

    Methods, ``due`` and ``is_busy`` are called on the owner thread, the other properties on any
    thread. All but ``step`` are cheap. The ``end_`` methods are idempotent.

    Attributes:
        is_awaited: whether a call of the session waits for the words; set by the session.
        was_awaited: whether one ever did.
        is_offline: whether words may come late, since nobody listens; set before the first step.
        settling: seconds of silence after which all words before it are written.
    """

    words: list[Word]
    error: Exception | None
    is_awaited: bool
    was_awaited: bool
    is_offline: bool
    settling: float

    def push(self, samples: NDArray[np.float32]) -> None: ...
    def skip(self, seconds: float) -> None: ...
    def end_utterance(self, silence: float = 0.0) -> None:
        """Write what is pending; the stream has heard ``silence`` seconds of silence last."""
        ...

    def end_stream(self) -> None: ...
    def use_vocabulary(self, vocabulary: Any) -> None:
        """Take another vocabulary, which the model has compiled, for what is heard from now on."""
        ...

    def step(self, others: "Sequence[Stream]" = ()) -> None:
        """Process a piece of the queue, and of ``others`` what shares the work."""
        ...

    @property
    def due(self) -> bool: ...
    @property
    def is_busy(self) -> bool:
        """Whether more steps have to complete what was begun, before other methods are called."""
        ...

    @property
    def may_share(self) -> bool:
        """Whether a step of another stream may take this one along, which nothing awaits."""
        ...

    @property
    def chunks_matter(self) -> bool:
        """Whether words depend on how much audio is there when a step begins."""
        ...

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
    """The base of all streams: the queue of samples, and the clock.

    Only the owner thread changes a stream, so there is no lock: other threads read single
    attributes, which are assigned atomically.

    Attributes:
        words: committed words that were not returned yet.
        error: what ended the stream in a step that another one shared.
        heard: seconds of real audio inserted so far, pauses included.
        processed: seconds of real audio that the model has consumed.
        lag: seconds of audio in the queue.
        settling: seconds of silence after which words are written; a family sets its own.
    """

    settling: float = 0.9

    def __init__(self) -> None:
        self._clock = Clock(SAMPLE_RATE)
        self._queue = SampleQueue()
        self._taken = 0  # samples consumed by steps
        self.words: list[Word] = []
        self.error: Exception | None = None
        self.is_awaited = self.was_awaited = self.is_offline = False
        self.heard = self.processed = self.lag = 0.0

    def push(self, samples: NDArray[np.float32]) -> None:
        """Queue real audio."""
        self._queue.put(samples)
        self._clock.insert(len(samples))
        self._note()

    def skip(self, seconds: float) -> None:
        """Note a pause of the real audio that is not fed."""
        self._clock.skip(seconds)
        self._note()

    @property
    def is_busy(self) -> bool:
        """Whether more steps have to complete what was begun; here every step is complete."""
        return False

    @property
    def may_share(self) -> bool:
        """Whether a step of another stream may take this one along."""
        return self.due

    @property
    def due(self) -> bool:
        """Whether there is a step to do."""
        raise NotImplementedError

    @property
    def chunks_matter(self) -> bool:
        """Whether words depend on how much audio is there when a step begins; here they do not."""
        return False

    def _pad(self, n_samples: int) -> None:
        """Queue padding: silence that is not in the real audio."""
        self._queue.put(np.zeros(n_samples, np.float32))
        self._clock.pad(n_samples)
        self._note()

    def _take(self, size: int) -> NDArray[np.float32]:
        """Take the oldest samples from the queue."""
        samples = self._queue.take(size)
        self._taken += size
        self._note()
        return samples

    def _note(self) -> None:
        self.heard = self._clock.now
        self.processed = self._clock.real(self._taken)
        self.lag = len(self._queue) / SAMPLE_RATE


class SampleQueue:
    """A first-in-first-out queue of samples, in time linear in the samples.

    Chunks are kept in their original arrays, so samples are copied once, whatever their size.
    """

    def __init__(self) -> None:
        self._chunks: deque[NDArray[np.float32]] = deque()
        self._taken = 0  # samples taken from the first chunk
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples; the array must not be changed afterwards."""
        if len(samples):
            self._chunks.append(samples)
            self._size += len(samples)

    def peek(self, count: int) -> NDArray[np.float32]:
        """The oldest ``count`` samples, which stay; IndexError if there are fewer."""
        if count > self._size:
            raise IndexError(f"{count} samples wanted, {self._size} there")
        parts = []
        first, wanted = self._taken, count
        for chunk in self._chunks:
            parts.append(chunk[first : first + wanted])
            first, wanted = 0, wanted - len(parts[-1])
            if not wanted:
                break
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        """Remove and return the oldest ``count`` samples; IndexError if there are fewer."""
        samples = self.peek(count)
        self._size -= count
        self._taken += count
        while self._chunks and self._taken >= len(self._chunks[0]):
            self._taken -= len(self._chunks.popleft())
        return samples
