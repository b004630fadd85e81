"""The Wyoming door: a TCP server beside that of HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from voxfast.errors import InvalidOptionError
from voxfast.serve import log
from voxfast.serve.bridge import CLOSE_SECONDS, broken, converse
from voxfast.serve.dialect import Handshake, Problem, new_id
from voxfast.serve.hub import Hub
from voxfast.serve.wyoming import WyomingDialect, frame_bytes

__all__ = ["LOOPBACK", "parse_address", "serve_wyoming"]

LOOPBACK = "127.0.0.1"
READ_BYTES = 1 << 16
_DOOR = "wyoming"


def parse_address(text: str) -> tuple[str, int]:
    """``PORT`` or ``HOST:PORT``, where an IPv6 host stands in brackets, as (host, port).

    The host is that of this machine alone unless another one is named: the protocol has no keys.

    Raises:
        InvalidOptionError: for anything else.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16) or text.startswith(":"):
        raise InvalidOptionError(f"expected PORT or HOST:PORT, such as 10300; got {text!r:.80}")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


@contextlib.asynccontextmanager
async def serve_wyoming(hub: Hub, host: str, port: int) -> AsyncIterator[int]:
    """Listen for clients until the block ends; gives the port.

    Raises:
        OSError: if the address cannot be used.
    """

    size = min(READ_BYTES, hub.limits.message_bytes)
    open_ones: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = open_ones[writer] = asyncio.Event()
        try:
            await _serve(hub, _Stream(reader, writer, size))
        finally:
            writer.transport.abort()  # what could be sent was
            del open_ones[writer]
            over.set()

    server = await asyncio.start_server(serve, host, port, limit=READ_BYTES)
    bound: int = server.sockets[0].getsockname()[1]
    log.note("listening", door=_DOOR, host=host, port=bound)
    try:
        yield bound
    finally:
        server.close()
        for writer, over in [*open_ones.items()]:
            writer.transport.abort()
            await over.wait()


async def _serve(hub: Hub, stream: "_Stream") -> None:
    """One client."""
    request_id = new_id("req")
    try:
        with hub.seat(_DOOR, request_id) as seat:
            dialect = WyomingDialect(Handshake(request_id), hub.service)
            await converse(dialect, stream, hub, seat)
    except Problem as problem:  # no seat is free
        hub.metrics.failed(_DOOR, problem.code)
        error = frame_bytes("error", {"text": problem.message, "code": problem.code})
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await stream.send(error)
                await stream.close(problem.close_code, problem.message)
    except OSError:
        pass  # a client may go away at any time
    except Exception:
        broken(_DOOR, request_id)


class _Stream:
    """A connection, for the bridge; it is read in pieces of ``size`` bytes at most."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int
    ) -> None:
        self._reader, self._writer, self._size = reader, writer, size
        self._has_ended = False

    async def receive(self) -> bytes | None:
        """The bytes that have come; empty, once: they have ended; None: the client has gone.

        A client that has said all may close its half of the connection and still read, and
        nothing but writing to it tells whether it does.
        """
        if self._has_ended:
            await asyncio.Event().wait()
        try:
            data = await self._reader.read(self._size)
        except OSError:
            return None
        self._has_ended = not data
        return data

    async def send(self, frame: str | bytes) -> None:
        """Send bytes; waits while the client does not read."""
        self._writer.write(frame.encode() if isinstance(frame, str) else frame)
        await self._writer.drain()

    async def close(self, code: int, reason: str) -> None:
        """Let the client read the last frame, and end the connection; TCP has no reasons."""
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await self._writer.drain()
            # Data that is not read would reset the connection, and with it the last frame.
            while await self._reader.read(self._size):
                pass
