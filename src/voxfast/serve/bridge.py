"""Between a connection, its dialect, and a session of the model.

Three tasks per connection. One reads frames, as long as there is room for their audio: a client
that sends faster than the model hears is slowed down by TCP, and nothing is dropped. One carries
out commands, in order, and hands events to the dialect. One sends frames: a client that does not
read them is cut off, and holds nobody else.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from voxfast import _pcm
from voxfast.audio import SAMPLE_RATE
from voxfast.errors import InvalidAudioError, InvalidOptionError
from voxfast.serve import log
from voxfast.serve.dialect import (
    Action,
    Audio,
    Clear,
    Cleared,
    Close,
    Command,
    Commit,
    Committed,
    Dialect,
    Event,
    Failed,
    Finish,
    Finished,
    Problem,
    Send,
    Start,
    Started,
)
from voxfast.serve.hub import Hub, Seat
from voxfast.serve.live import LiveSession

__all__ = ["Transport", "broken", "converse"]

PIECE = SAMPLE_RATE // 2  # samples after which words are looked for
CLOSE_SECONDS = 5.0


class Transport(Protocol):
    """A connection."""

    async def receive(self) -> str | bytes | None:
        """The next frame; None: the client has gone."""
        ...

    async def send(self, frame: str | bytes) -> None:
        """Send a frame; waits while the client does not read. Raises OSError if it has gone."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """End the connection; ``code`` and ``reason`` are those of a WebSocket."""
        ...


async def converse(
    dialect: Dialect,
    transport: Transport,
    hub: Hub,
    seat: Seat,
    *,
    idle_seconds: float | None = None,
) -> None:
    """Serve one client until it, the dialect or the server ends the connection.

    The connection is closed in any case but that of a client that has gone.

    Args:
        idle_seconds: without a frame; the shorter of it and of the limit holds.
    """
    await _Bridge(dialect, transport, hub, seat, idle_seconds).run()


class _Bridge:
    def __init__(
        self,
        dialect: Dialect,
        transport: Transport,
        hub: Hub,
        seat: Seat,
        idle_seconds: float | None,
    ) -> None:
        self._dialect, self._transport, self._hub, self._seat = dialect, transport, hub, seat
        self._limits = hub.limits
        self._idle_seconds = min(hub.limits.idle_seconds, idle_seconds or hub.limits.idle_seconds)
        self._inbox = _Inbox()
        self._outbox = _Outbox()
        self._session: LiveSession | None = None
        self._is_gone = self._is_draining = self._is_working = False
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._ask(self._dialect.open)
        self._seat.drain = self._drain
        if self._hub.is_draining:  # since the seat was taken
            self._drain()
        self._reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        tasks = pending = {self._reader, writer, asyncio.create_task(self._work())}
        try:
            while not writer.done() and not self._is_gone:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled():
                        task.result()  # raises what the task has raised
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._seat.drain = None
            if self._session is not None:
                self._session.close()

    # -- Client to session

    async def _read(self) -> None:
        """Read frames until the client goes, or the connection is to be closed."""
        while not self._outbox.is_closed:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    frame = await self._transport.receive()
            except TimeoutError:
                if self._is_working or self._inbox.is_waiting:
                    continue  # it is the client that waits
                self._fail(_idle(self._idle_seconds))
                return
            if frame is None:
                self._is_gone = True
                return
            if self._is_draining:
                continue
            if len(frame) > self._limits.message_bytes:
                self._fail(_too_long(self._limits.message_bytes))
                return
            self._ask(partial(self._dialect.receive, frame))
            await self._inbox.room(self._limits.ahead_seconds)

    def _ask(self, question: Callable[[], Iterable[Action]]) -> None:
        """Do what the dialect says."""
        try:
            actions = [*question()]
        except Exception:
            self._fail(broken(self._seat.door, self._seat.request_id))
            return
        for action in actions:
            if self._outbox.is_closed:
                return
            if isinstance(action, Send | Close):
                self._outbox.put(action)
                if self._outbox.size > self._limits.unread_bytes:
                    self._hub.metrics.failed(self._seat.door, "slow_reader")
                    self._outbox.cut(Close(1008, "the client reads too slowly"))
            else:
                self._inbox.put(action)

    def _tell(self, *events: Event) -> None:
        """Hand events to the dialect."""
        for event in events:
            self._ask(partial(self._dialect.event, event))

    def _fail(self, problem: Problem, command: Command | None = None) -> None:
        """Tell the client of a problem; the connection ends by it unless a command is named."""
        is_final = command is None
        if self._outbox.is_closed:
            return
        self._hub.metrics.failed(self._seat.door, problem.code)
        if is_final:
            self._inbox.clear()
        if problem.code != "internal_error":
            self._tell(Failed(problem, is_final, command))
        else:
            with contextlib.suppress(Exception):  # the dialect itself may be what is broken
                for action in self._dialect.event(Failed(problem, is_final)):
                    if isinstance(action, Send):
                        self._outbox.put(action)
        if is_final:
            self._outbox.put(Close(problem.close_code, problem.message[:100]))

    def _drain(self) -> None:
        """The server ends: the session is finished, and then the connection."""
        self._is_draining = True
        self._inbox.put(Finish())

    # -- Commands to the session, and its events to the client

    async def _work(self) -> None:
        while True:
            self._is_working = False
            command = await self._inbox.get()
            self._is_working = True
            try:
                await self._carry_out(command)
            except (InvalidOptionError, InvalidAudioError) as error:
                problem = Problem(str(error), "invalid_value", param=_param(error, command))
                self._fail(problem, command)
            except Problem as problem:
                self._fail(problem)
            except Exception:
                self._fail(broken(self._seat.door, self._seat.request_id))
            if self._is_draining and not self._inbox.is_waiting:
                self._outbox.put(Close(1001, "the server is ending"))

    async def _carry_out(self, command: Command) -> None:
        match command:
            case Start():
                await self._start(command)
                self._tell(Started())
            case Audio(data):
                await self._hear(self._need().convert(data))
            case Commit():
                session = self._need()
                await self._hear(session.rest())
                await self._note(session, flush=True)
                self._tell(Committed(session.heard))
            case Clear():
                if self._session is not None:
                    self._session = await self._session.cleared()
                self._tell(Cleared())
            case Finish():
                await self._finish()

    async def _start(self, options: Start) -> None:
        before = self._session
        if before is not None and before.options == options:
            return
        opened = await LiveSession.open(self._hub.model, options)
        if before is not None:
            await self._hear(before.rest())
            await self._note(before, finish=True)
            before.close()
            opened.skip(before.heard)
        self._session = opened

    async def _finish(self) -> None:
        duration, language = 0.0, None
        if (session := self._session) is not None:
            await self._hear(session.rest())
            await self._note(session, finish=True)
            duration, language = session.heard, session.language
            session.close()
            self._session = None
        elif self._is_draining:
            return  # there was nothing to finish
        self._tell(Finished(duration, language))

    async def _hear(self, samples: npt.NDArray[np.float32]) -> None:
        """Give audio to the session, and its events to the dialect as they come."""
        session = self._need()
        metrics, door = self._hub.metrics, self._seat.door
        for at in range(0, len(samples), PIECE):
            piece = samples[at : at + PIECE]
            waiting = (len(samples) - at) / SAMPLE_RATE + self._inbox.seconds
            metrics.waited(door, waiting)
            seconds = len(piece) / SAMPLE_RATE
            if session.heard + seconds > self._limits.audio_seconds:
                await self._note(session, finish=True)
                raise _too_much(self._limits.audio_seconds)
            metrics.heard(door, seconds)
            self._seat.audio_seconds += seconds
            session.insert(piece)
            await self._note(session)
            if self._outbox.is_closed:
                return

    async def _note(
        self, session: LiveSession, *, flush: bool = False, finish: bool = False
    ) -> None:
        """Tell the dialect what the session has written."""
        events, delays = await session.events(flush=flush, finish=finish)
        self._hub.metrics.wrote(self._seat.door, len(delays))
        self._hub.metrics.delayed(self._seat.door, delays)
        self._seat.words += len(delays)
        self._tell(*events)

    def _need(self) -> LiveSession:
        if self._session is None:
            raise Problem("audio came before a session was opened", "no_session")
        return self._session

    # -- Session to client

    async def _write(self) -> None:
        while True:
            action = await self._outbox.get()
            try:
                if isinstance(action, Close):
                    await self._stop_reading()
                    async with asyncio.timeout(CLOSE_SECONDS):
                        await self._transport.close(action.code, action.reason)
                    return
                async with asyncio.timeout(self._limits.send_seconds):
                    await self._transport.send(action.frame)
            except TimeoutError:
                if isinstance(action, Close):
                    return
                self._hub.metrics.failed(self._seat.door, "slow_reader")
                self._outbox.cut(Close(1008, "the client reads too slowly"))
            except OSError:
                return  # the client has gone

    async def _stop_reading(self) -> None:
        """To close a connection may take reading what is left of it, and one reads at a time."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})


class _Inbox:
    """Commands that wait, and the seconds of their audio."""

    MOST = 10_000  # commands without audio that may wait

    def __init__(self) -> None:
        self._commands: deque[tuple[Command, float]] = deque()
        self._bytes_per_second = 32_000
        self._has_come, self._has_gone = asyncio.Event(), asyncio.Event()
        self.seconds = 0.0

    @property
    def is_waiting(self) -> bool:
        return bool(self._commands)

    def put(self, command: Command) -> None:
        seconds = 0.0
        if isinstance(command, Start):
            form = _pcm.Encoding(command.sample_rate, command.channels, command.sample_format)
            self._bytes_per_second = max(1, form.rate * form.frame_bytes)
        elif isinstance(command, Audio):
            seconds = len(command.data) / self._bytes_per_second
        self._commands.append((command, seconds))
        self.seconds += seconds
        self._has_come.set()

    async def get(self) -> Command:
        """The next command; pieces of audio that have come meanwhile are one."""
        while not self._commands:
            self._has_come.clear()
            await self._has_come.wait()
        command, seconds = self._commands.popleft()
        if isinstance(command, Audio):
            parts = [command.data]
            while self._commands and seconds < PIECE / SAMPLE_RATE:
                following, more = self._commands[0]
                if not isinstance(following, Audio):
                    break
                self._commands.popleft()
                parts.append(following.data)
                seconds += more
            command = Audio(b"".join(parts))
        self.seconds = max(0.0, self.seconds - seconds) if self._commands else 0.0
        self._has_gone.set()
        return command

    async def room(self, seconds: float) -> None:
        """Wait until no more audio than this waits."""
        while self.seconds > seconds or len(self._commands) > self.MOST:
            self._has_gone.clear()
            await self._has_gone.wait()

    def clear(self) -> None:
        self._commands.clear()
        self.seconds = 0.0
        self._has_gone.set()


class _Outbox:
    """Frames that wait for the client."""

    def __init__(self) -> None:
        self._actions: deque[Send | Close] = deque()
        self._has_come = asyncio.Event()
        self.size = 0  # bytes
        self.is_closed = False

    def put(self, action: Send | Close) -> None:
        if self.is_closed:
            return
        last = self._actions[-1] if self._actions else None
        if isinstance(action, Send):
            if action.may_skip and isinstance(last, Send) and last.may_skip:
                self._actions.pop()
                self.size -= len(last.frame)
            self.size += len(action.frame)
        else:
            self.is_closed = True
        self._actions.append(action)
        self._has_come.set()

    def cut(self, close: Close) -> None:
        """Drop all that waits, and close."""
        self._actions.clear()
        self.size, self.is_closed = 0, False
        self.put(close)

    async def get(self) -> Send | Close:
        while not self._actions:
            self._has_come.clear()
            await self._has_come.wait()
        action = self._actions.popleft()
        if isinstance(action, Send):
            self.size -= len(action.frame)
        return action


def _param(error: Exception, command: Command) -> str | None:
    """Which of the options the model complains of."""
    if isinstance(error, InvalidOptionError):
        for name in ("vocabulary", "language", "prompt", "delay_ms", "endpoint_ms"):
            if name in str(error):
                return name
    return None


def broken(door: str, request_id: str) -> Problem:
    """What a client is told of a fault of the server, which is logged; in an ``except`` block."""
    log.exception("failed", door=door, request_id=request_id)
    message = f"the server failed; its log says why, under request {request_id}"
    return Problem(message, "internal_error", 500, "server_error")


def _idle(seconds: float) -> Problem:
    return Problem(
        f"nothing came for {seconds:g} s; send audio, or open a connection when there is some",
        "idle_timeout",
        408,
    )


def _too_long(most: int) -> Problem:
    return Problem(
        f"a message of more than {most} bytes; send the audio in smaller pieces",
        "message_too_large",
        413,
    )


def _too_much(seconds: float) -> Problem:
    return Problem(
        f"more than {seconds:g} s of audio in a session; open another one",
        "audio_too_long",
        413,
    )
