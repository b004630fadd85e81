"""Workers on a cluster: Ray's actors."""

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from voxfast._version import version
from voxfast.batch.pools import MOST_FAILED_STARTS, THREAD_VARIABLES, Loss, WorkersLostError
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result, Settings, Transcriber
from voxfast.errors import InvalidOptionError, VoxfastError

__all__ = ["ActorPool", "Cluster"]

_log = logging.getLogger(__name__)
_PATIENCE = 60.0  # seconds without any actor, after which the log says so
_SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of Ray, and the actors on it.

    Attributes:
        address: of the cluster: ``auto``, ``host:port``, ``ray://host:port``; None: RAY_ADDRESS,
            or Ray on this machine alone. A program that has called ``ray.init`` stays connected
            as it is.
        actors: the least and the most. More are asked for as long as there is work for them;
            those without work are let go.
        cpus, gpus: that Ray reserves for each; an actor computes with as many threads.
        memory: bytes that Ray reserves for each; None: none.
    """

    address: str | None = None
    actors: tuple[int, int] = (1, 16)
    cpus: float = 1
    gpus: float = 0
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.actors[0] <= self.actors[1]:
            raise InvalidOptionError(
                f"actors {self.actors[0]} to {self.actors[1]}; expected at least 1, and no fewer "
                f"at most than at least"
            )
        if min(self.cpus, self.gpus, self.memory or 0) < 0:
            raise InvalidOptionError("resources of an actor cannot be negative")


class ActorPool:
    """Actors, each with a model of its own; see :class:`voxfast.batch.pools.Pool`.

    Actors and their nodes may vanish: what they were working on is a loss, and others take
    their place. If this process ends, Ray ends the actors.

    Raises:
        ImportError: if Ray is missing.
        VoxfastError: if the cluster does not answer.
    """

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._ray = _ray()
        self._settings, self._cluster = settings, cluster
        self._actors: list[_Handle] = []
        self._failed_starts = 0
        self._alone_since = time.monotonic()
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            _connect(self._ray, cluster.address)
        self._remote = self._ray.remote(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            memory=cluster.memory,
            max_restarts=0,
            max_task_retries=0,
        )(_Actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in list(self._actors):
            self._end(actor)
        if self._is_own:
            self._ray.shutdown()

    @property
    def is_busy(self) -> bool:
        return any(actor.recording is not None for actor in self._actors)

    def fill(self, queue: deque[Recording]) -> None:
        """Give recordings to actors that are ready; ask for more actors, or let them go."""
        for actor in self._actors:
            if queue and actor.is_ready and actor.recording is None:
                actor.give(queue.popleft())
        starting = sum(not actor.is_ready for actor in self._actors)
        ready = len(self._actors) - starting
        least, most = self._cluster.actors
        # As many again as there are: the number of actors doubles, and few wait in vain.
        wanted = min(max(least, 2 * ready), most, ready + len(queue))
        for _ in range(wanted - ready - starting):
            actor = self._remote.remote(int(self._cluster.cpus))
            self._actors.append(_Handle(actor, self._settings))
        if not queue:
            for actor in [actor for actor in self._actors if actor.recording is None]:
                self._end(actor)

    def wait(self) -> list[Result | Loss]:
        """Wait for results, for actors that start, and for those that vanish.

        Raises:
            VoxfastError, ImportError: if the model cannot be loaded.
        """
        by_task = {actor.task: actor for actor in self._actors if actor.task is not None}
        self._ray.wait(list(by_task), num_returns=1, timeout=_PATIENCE)
        done, _ = self._ray.wait(list(by_task), num_returns=len(by_task), timeout=0)
        came: list[Result | Loss] = []
        for task in done:
            actor = by_task[task]
            try:
                answer = self._ray.get(task)
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            except self._ray.exceptions.RayError as error:
                came += self._lose(actor, error)
                continue
            actor.task = None
            if isinstance(answer, Result):
                actor.recording = None
                came.append(answer)
            elif answer != version():
                raise VoxfastError(
                    f"an actor has voxfast {answer}, and this is {version()}; install the same on "
                    f"every node"
                )
            else:
                actor.is_ready, self._failed_starts = True, 0
        self._watch()
        return came

    def _watch(self) -> None:
        """Say so if no actor comes, for want of resources."""
        if any(actor.is_ready for actor in self._actors):
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _PATIENCE:
            self._alone_since = time.monotonic()
            _log.warning(
                "no actor has started for %.0f s: the cluster has %s, and an actor needs %g CPUs "
                "and %g GPUs",
                _PATIENCE,
                self._ray.cluster_resources(),
                self._cluster.cpus,
                self._cluster.gpus,
            )

    def _lose(self, actor: "_Handle", error: Exception) -> list[Loss]:
        """Take note of the end of an actor."""
        lost = actor.recording
        self._end(actor)
        reason = " ".join(str(error).split())
        if not actor.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                raise WorkersLostError(
                    f"{MOST_FAILED_STARTS} actors ended before they had loaded the model: {reason}"
                )
        return [] if lost is None else [Loss(lost, f"its actor was lost: {reason:.300}")]

    def _end(self, actor: "_Handle") -> None:
        self._actors.remove(actor)
        self._ray.kill(actor.actor)


class _Handle:
    """One actor, what it is working on, and the task that will be done then."""

    def __init__(self, actor: Any, settings: Settings) -> None:
        self.actor = actor
        self.task: Any = actor.start.remote(settings)
        self.recording: Recording | None = None
        self.is_ready = False

    def give(self, recording: Recording) -> None:
        """Have it transcribe a recording."""
        self.recording = recording
        self.task = self.actor.transcribe.remote(recording)


class _Actor:
    """A worker, in a process of Ray's."""

    def __init__(self, threads: int) -> None:
        # Read when MLX and the extension are loaded, which is later.
        for name in THREAD_VARIABLES:
            os.environ[name] = str(max(1, threads))

    def start(self, settings: Settings) -> str:
        """Load the model; returns voxfast's version."""
        self._transcriber = Transcriber.of(settings)
        return version()

    def transcribe(self, recording: Recording) -> Result:
        """Transcribe a recording."""
        return self._transcriber(recording)


def _ray() -> Any:
    """The module ``ray``."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError(
            f'a cluster needs Ray: pip install "voxfast[ray]", on every node ({error})'
        ) from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one of this machine alone."""
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    if place not in ("local", "auto"):
        _check_answers(place)
    options = {"include_dashboard": False} if place == "local" else {}
    ending = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=place, logging_level=logging.WARNING, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if place == "auto" and isinstance(error, ConnectionError):
            raise VoxfastError(
                "this machine is in no cluster of Ray; start one (ray start --head), name the "
                "address of one, or leave it out for Ray on this machine alone"
            ) from error
        raise VoxfastError(f"no cluster of Ray at {place}: {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ending or signal.SIG_DFL)  # Ray has put its own there


def _check_answers(place: str) -> None:
    """Raise VoxfastError unless something listens there: Ray itself tries for minutes."""
    scheme, _, rest = place.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port or (10001 if scheme == "ray" else None)
    except ValueError:
        host = port = None
    if not host or port is None:
        raise VoxfastError(
            f"{place} is no address of a cluster: auto, HOST:PORT or ray://HOST:PORT"
        )
    try:
        socket.create_connection((host, port), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise VoxfastError(
            f"no cluster of Ray at {place}: {error.strerror or error}; start one there "
            f"({'ray start --head' + f' --port={port}' * (not scheme)}), or leave the address out "
            f"for Ray on this machine alone"
        ) from error


def _cause(error: Any) -> Exception:
    """What an actor raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VoxfastError | ImportError):
        return cause
    return VoxfastError(f"an actor failed: {cause or error}")
