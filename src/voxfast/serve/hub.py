"""What all connections share: the model, the limits, and who is there."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voxfast.hub import repository_of
from voxfast.serve import log
from voxfast.serve.dialect import Problem, Service
from voxfast.serve.metrics import Metrics

if TYPE_CHECKING:
    from voxfast.model import Model

__all__ = ["Hub", "Limits", "Seat"]


@dataclass(frozen=True)
class Limits:
    """How much the clients may ask for.

    Attributes:
        sessions: connections with live audio and files, at a time.
        upload_bytes: of an uploaded file, with its form.
        message_bytes: of a frame.
        audio_seconds: of one session or file.
        idle_seconds: without a frame or a piece of an upload.
        requests_per_minute: of one key, or of one address without a key; 0: any number.
        ahead_seconds: of audio that may wait in a session; more is not read from the connection.
        unread_bytes: that wait for a client that does not read; more closes its connection.
        send_seconds: that a client may take to read one frame.
        drain_seconds: that the sessions get for their last words when the server ends.
    """

    sessions: int = 32
    upload_bytes: int = 100 << 20
    message_bytes: int = 16 << 20
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = 300.0
    requests_per_minute: int = 600
    ahead_seconds: float = 20.0
    unread_bytes: int = 1 << 20
    send_seconds: float = 30.0
    drain_seconds: float = 30.0


@dataclass(eq=False)
class Seat:
    """A place of one of the sessions.

    Attributes:
        door: the name of the protocol.
        request_id: in the log.
        drain: called when the server ends: the session is to be finished.
    """

    door: str
    request_id: str
    drain: Callable[[], None] | None = None
    audio_seconds: float = 0.0
    words: int = 0


@dataclass(eq=False)
class Hub:
    """What all connections share.

    Attributes:
        aliases: names that clients may have for the model, beside its own.
    """

    model: "Model"
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.is_draining = False
        self._seats: set[Seat] = set()
        self.metrics.watch(self.model.pass_count)
        self.service = Service(
            model=self.model.name,
            description=self.model.description,
            created=int(time.time()),
            delays_ms=self.model.delays_ms,
            languages=self.model.languages,
            message_bytes=self.limits.message_bytes,
            aliases=(*self.aliases, repository_of(self.model.name)),
        )

    @contextlib.contextmanager
    def seat(self, door: str, request_id: str) -> Iterator[Seat]:
        """A place for a session, as long as it lasts; then it is logged.

        Raises:
            Problem: if all are taken, or the server ends.
        """
        if self.is_draining:
            raise Problem(
                "the server is ending; try again in a while",
                "server_ending",
                503,
                "server_error",
                retry_after=10,
            )
        if len(self._seats) >= self.limits.sessions:
            raise Problem(
                f"all {self.limits.sessions} sessions are taken; try again in a while",
                "too_many_sessions",
                429,
                "rate_limit_error",
                retry_after=5,
            )
        seat = Seat(door, request_id)
        self._seats.add(seat)
        self.metrics.session_began(door)
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            self.metrics.session_ended(door)
            log.note(
                "session",
                request_id=request_id,
                door=door,
                audio_seconds=round(seat.audio_seconds, 3),
                words=seat.words,
            )

    @property
    def sessions(self) -> int:
        """How many there are now."""
        return len(self._seats)

    async def drain(self) -> bool:
        """Refuse new sessions, and let those that are there write their last words.

        Returns:
            Whether all have ended within ``limits.drain_seconds``.
        """
        self.is_draining = True
        for seat in [*self._seats]:
            if seat.drain is not None:
                seat.drain()
        end = time.monotonic() + self.limits.drain_seconds
        while self._seats and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return not self._seats
