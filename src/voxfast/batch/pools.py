"""What the workers of this machine and those of a cluster have in common."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol, Self

from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result
from voxfast.errors import VoxfastError

__all__ = [
    "MOST_FAILED_STARTS",
    "READY",
    "THREAD_VARIABLES",
    "Loss",
    "Pool",
    "WorkersLostError",
]

MOST_FAILED_STARTS = 3
"""Workers in a row that may end before they have loaded the model."""
THREAD_VARIABLES = ("VOXFAST_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Of the environment: how many threads a worker takes."""
READY = "ready"
"""What a worker says when it has loaded the model."""


class WorkersLostError(VoxfastError):
    """Workers end before they are ready, again and again."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A recording whose worker came to an end.

    Attributes:
        recording: what it was working on.
        reason: how it ended, in words.
    """

    recording: Recording
    reason: str


class Pool(Protocol):
    """Workers, each of which has one recording at a time.

    Leaving the context ends them at once: they write nothing, so nothing is left half written.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def is_busy(self) -> bool:
        """Whether a recording was given to a worker and is not back."""
        ...

    def fill(self, queue: deque[Recording]) -> None:
        """Give recordings, taken from the front of the queue, to workers that have none."""
        ...

    def wait(self) -> list[Result | Loss]:
        """Wait until something has come of a recording; may return nothing.

        Raises:
            VoxfastError, ImportError: if the workers cannot load the model.
        """
        ...
