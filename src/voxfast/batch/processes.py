"""Worker processes on this machine."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections import deque
from multiprocessing.connection import Connection, wait
from pathlib import Path
from socket import socketpair
from typing import Self

import voxfast
from voxfast.batch.pools import (
    MOST_FAILED_STARTS,
    READY,
    THREAD_VARIABLES,
    Loss,
    WorkersLostError,
)
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result, Settings

__all__ = ["ProcessPool", "processors", "sensible_workers"]

_SECONDS_TO_END = 5.0
_BESIDE_WEIGHTS = 0.4e9  # bytes of a worker, weights apart
_OVER_WEIGHTS = 1.3  # weights in memory for one byte on disk, at the most


class ProcessPool:
    """Processes, each with a model of its own; see :class:`voxfast.batch.pools.Pool`.

    A worker that is killed is replaced. If this process ends, the workers do.

    Args:
        settings: of the :class:`voxfast.batch.Transcriber` of each worker.
        size: how many workers there are at most; none is started without need.
        threads: of each; the environment's VOXFAST_NUM_THREADS goes first.
    """

    def __init__(self, settings: Settings, size: int, threads: int) -> None:
        self._settings, self._size, self._threads = settings, size, threads
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    @property
    def is_busy(self) -> bool:
        return any(worker.recording is not None for worker in self._workers)

    def fill(self, queue: deque[Recording]) -> None:
        """Give recordings to workers that have none; start workers as they are needed."""
        for worker in self._workers:
            if worker.recording is None and queue:
                worker.give(queue.popleft())
        while queue and len(self._workers) < self._size:
            self._workers.append(_Worker(self._settings, self._threads))
            # Given before it is ready: it is read once the model is loaded.
            self._workers[-1].give(queue.popleft())

    def wait(self) -> list[Result | Loss]:
        """Wait for results and for workers that end.

        Raises:
            VoxfastError, ImportError: if the model cannot be loaded.
        """
        came: list[Result | Loss] = []
        ready = set(wait([worker.connection for worker in self._workers]))
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                came += self._lose(worker)
                continue
            if isinstance(message, Exception):
                raise message
            if message == READY:
                worker.is_ready, self._failed_starts = True, 0
            else:
                worker.recording = None
                came.append(message)
        return came

    def _lose(self, worker: "_Worker") -> list[Loss]:
        """Take note of the end of a worker."""
        self._workers.remove(worker)
        reason = worker.end()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise WorkersLostError(
                    f"{MOST_FAILED_STARTS} workers ended before they had loaded the model, the "
                    f"last one by {reason}; is there memory for so many? --workers 1 takes least"
                )
        lost = worker.recording
        return [] if lost is None else [Loss(lost, f"its worker was ended by {reason}")]


class _Worker:
    """One process, and what it is working on."""

    def __init__(self, settings: Settings, threads: int) -> None:
        here, there = socketpair()
        with there:
            self.process = subprocess.Popen(
                # -P: a file of the user's in the current folder is no module of ours.
                [sys.executable, "-P", "-m", "voxfast.batch.worker", str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(threads),
            )
        self.connection: Connection = Connection(here.detach())
        self.recording: Recording | None = None
        self.is_ready = False
        with contextlib.suppress(OSError):  # that it has ended is found out by waiting
            self.connection.send(settings)

    def give(self, recording: Recording) -> None:
        """Have it transcribe a recording."""
        self.recording = recording
        with contextlib.suppress(OSError):
            self.connection.send(recording)

    def end(self) -> str:
        """Wait for a process that has closed its connection; returns how it ended, in words."""
        try:
            code = self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            code = 0
        self.kill()
        return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


def _environment(threads: int) -> dict[str, str]:
    """The environment of a worker."""
    own = str(Path(voxfast.__file__).parent.parent)
    paths = [own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
    }


def processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sensible_workers(weights: int) -> int:
    """How many workers share this machine well.

    On a CPU, one for each processor: workers of one thread each get more done than one worker
    with many threads. Each has the weights in its own memory, which limits them. On a GPU, one.

    Args:
        weights: bytes of the checkpoint.
    """
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.gpu):
        return 1
    each = _OVER_WEIGHTS * weights + _BESIDE_WEIGHTS
    return max(1, min(processors(), math.floor(_free_memory() / each)))


def _free_memory() -> float:
    """Bytes of memory that are free, and allowed to this process; infinite if not known."""
    free = [math.inf]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free += [1024.0 * int(line.split()[1]) for line in lines if "MemAvailable" in line]
    with contextlib.suppress(OSError, ValueError):
        free.append(float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    if len(free) == 1:
        with contextlib.suppress(OSError, ValueError):
            free.append(0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(free)
