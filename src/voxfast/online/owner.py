"""The thread that does all MLX work of a model."""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import mlx.core as mx

from voxfast.errors import VoxfastError
from voxfast.online import forks

__all__ = ["OwnerThread"]

P = ParamSpec("P")
T = TypeVar("T")


class Reply(Protocol):
    """Where the result of a function goes, or its exception."""

    def put(self, reply: tuple[Any, BaseException | None], /) -> object: ...


Jobs = SimpleQueue[tuple[Reply, Callable[[], Any]] | None]


class OwnerThread:
    """Runs functions one after the other on a thread of its own.

    MLX streams belong to threads: a lazy array made on one thread cannot be evaluated on
    another. Sessions may be driven from any thread, so every model has one owner.

    An interrupt (Ctrl-C) ends the waiting of the caller; the function still completes, so no
    state is left inconsistent. The thread ends with ``close()``, with its last reference, or
    with the process.

    Raises:
        ForkedProcessError: in the fork of a process that had an owner thread.
    """

    def __init__(self, name: str) -> None:
        forks.check_process()
        forks.note_use()
        self._jobs: Jobs = SimpleQueue()
        self._thread = threading.Thread(
            target=_work, args=(self._jobs,), name=f"voxfast-{name}", daemon=True
        )
        self._thread.start()
        self._lock = threading.Lock()
        self._stop = weakref.finalize(self, _stop, self._jobs, self._thread, self._lock)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on the owner thread and wait for its result.

        Raises:
            ForkedProcessError: in a forked child, which has no owner thread.
            VoxfastError: after close().
        """
        forks.check_process()
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        # Not a Future: it takes locks in Python code, and an interrupt there would leave them
        # locked. A SimpleQueue takes its locks in C.
        reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.post(reply, lambda: function(*args, **kwargs))
        result, error = reply.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return cast(T, result)

    def post(self, reply: Reply, function: Callable[[], Any]) -> None:
        """Call the function on the owner thread, and put its result into ``reply`` there.

        Raises:
            ForkedProcessError, VoxfastError: as :meth:`run`.
        """
        forks.check_process()
        with self._lock:  # no job may follow the end marker
            if not self._stop.alive:
                raise VoxfastError("the model is closed; load it again")
            self._jobs.put((reply, function))

    @property
    def is_wanted(self) -> bool:
        """Whether other functions wait for the one that runs."""
        return not self._jobs.empty()

    def close(self) -> None:
        """End the thread after the queued functions."""
        self._stop()


def _work(jobs: Jobs) -> None:
    while (job := jobs.get()) is not None:
        reply, function = job
        try:
            reply.put((function(), None))
        except BaseException as error:  # all exceptions are raised in the caller
            reply.put((None, error))
        del job, reply, function  # keep no reference while idle
    # Without this, MLX 0.32 aborts the process when a thread that used it ends.
    mx.clear_streams()


def _stop(jobs: Jobs, thread: threading.Thread, lock: threading.Lock) -> None:
    if not forks.is_forked():
        with lock:
            jobs.put(None)
        if threading.current_thread() is not thread:
            thread.join()
