"""The one thread that does all MLX work of a model."""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import mlx.core as mx

from voxfast.errors import VoxfastError

__all__ = ["OwnerThread"]

P = ParamSpec("P")
T = TypeVar("T")
Jobs = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class OwnerThread:
    """Runs functions one after the other on a thread of its own.

    MLX's streams belong to threads: a lazy array made on one thread cannot be evaluated on
    another. Sessions may be driven from any thread, so every model has one owner.

    A caller that is interrupted (Ctrl-C) stops waiting; the function still runs to its end,
    so state is never left half-way. The thread ends with ``close()``, with its last
    reference, or with the process.
    """

    def __init__(self, name: str) -> None:
        self._jobs: Jobs = SimpleQueue()
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=_work, args=(self._jobs,), name=f"voxfast-{name}", daemon=True
        )
        self._thread.start()
        self._lock = threading.Lock()
        self._stop = weakref.finalize(
            self, _stop, self._jobs, self._thread, self._process, self._lock
        )

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on the owner thread and wait for its result.

        Raises:
            VoxfastError: in a forked child, which has no owner thread, and after close().
        """
        if os.getpid() != self._process:
            raise VoxfastError(
                "the model was loaded before this process was forked; load it in the child, or "
                "start the child with the 'spawn' method"
            )
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        future: Future[T] = Future()
        with self._lock:  # no job may come behind the end
            if not self._stop.alive:
                raise VoxfastError("the model is closed; load it again")
            self._jobs.put((future, lambda: function(*args, **kwargs)))
        return future.result()

    def close(self) -> None:
        """End the thread once it has done what was given to it."""
        self._stop()


def _work(jobs: Jobs) -> None:
    while (job := jobs.get()) is not None:
        future, function = job
        try:
            future.set_result(function())
        except BaseException as error:  # everything belongs to the caller who waits
            future.set_exception(error)
        del job, future, function  # hold nothing while idle
    # Without this MLX 0.32 aborts the process when a thread that used it has ended.
    mx.clear_streams()


def _stop(jobs: Jobs, thread: threading.Thread, process: int, lock: threading.Lock) -> None:
    if os.getpid() == process:
        with lock:
            jobs.put(None)
        if threading.current_thread() is not thread:
            thread.join()
