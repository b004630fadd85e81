"""The one thread that does all MLX work of a model."""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

import mlx.core as mx

from voxfast.errors import VoxfastError
from voxfast.online import forks

__all__ = ["OwnerThread"]

P = ParamSpec("P")
T = TypeVar("T")
# What a function returned, or what it raised.
Reply = SimpleQueue[tuple[Any, BaseException | None]]
Jobs = SimpleQueue[tuple[Reply, Callable[[], Any]] | None]


class OwnerThread:
    """Runs functions one after the other on a thread of its own.

    MLX's streams belong to threads: a lazy array made on one thread cannot be evaluated on
    another. Sessions may be driven from any thread, so every model has one owner.

    A caller that is interrupted (Ctrl-C) stops waiting; the function still runs to its end,
    so state is never left half-way. The thread ends with ``close()``, with its last
    reference, or with the process.

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
        # A Future's locks are taken in Python code, where an interrupt may leave them taken, and
        # the owner then waits for ever; a SimpleQueue's are not.
        reply: Reply = SimpleQueue()
        with self._lock:  # no job may come behind the end
            if not self._stop.alive:
                raise VoxfastError("the model is closed; load it again")
            self._jobs.put((reply, lambda: function(*args, **kwargs)))
        result, error = reply.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return cast(T, result)

    def close(self) -> None:
        """End the thread once it has done what was given to it."""
        self._stop()


def _work(jobs: Jobs) -> None:
    while (job := jobs.get()) is not None:
        reply, function = job
        try:
            reply.put((function(), None))
        except BaseException as error:  # everything belongs to the caller who waits
            reply.put((None, error))
        del job, reply, function  # hold nothing while idle
    # Without this MLX 0.32 aborts the process when a thread that used it has ended.
    mx.clear_streams()


def _stop(jobs: Jobs, thread: threading.Thread, lock: threading.Lock) -> None:
    if not forks.is_forked():
        with lock:
            jobs.put(None)
        if threading.current_thread() is not thread:
            thread.join()
