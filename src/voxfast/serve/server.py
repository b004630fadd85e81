"""The server as a process: sockets, signals, and an end in order."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import uvicorn

from voxfast.errors import InvalidOptionError
from voxfast.serve import log
from voxfast.serve.app import build_app
from voxfast.serve.gate import App
from voxfast.serve.hub import Hub
from voxfast.serve.security import LOCAL_HOSTS, Policy, read_keys

__all__ = ["Listener", "Server", "Settings"]

DEFAULT_PORT = 8910
MOST_CONNECTIONS = 1000
BACKLOG = 1024
Listener: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(frozen=True)
class Settings:
    """Where to listen, and to whom.

    Attributes:
        host: a name or an address.
        port: 0: a free one.
        api_key_file: see :func:`voxfast.serve.security.read_keys`; None: no key is needed.
        allow_anonymous: whether other machines may come in without a key.
        allow_hosts: names that the server answers to beside the local ones; they are in the URLs
            of its clients.
        allow_origins: of web pages that may ask, beside the server's own.
        certificate, private_key: files in PEM, for HTTPS.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key_file: Path | None = None
    allow_anonymous: bool = False
    allow_hosts: Sequence[str] = ()
    allow_origins: Sequence[str] = ()
    certificate: Path | None = None
    private_key: Path | None = None

    def check(self) -> None:
        """Raise InvalidOptionError for what cannot be: before a model is loaded."""
        self.policy()
        if self.certificate is None:
            if self.private_key is not None:
                raise InvalidOptionError("--private-key needs --certificate")
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.private_key)
        except OSError as error:
            raise InvalidOptionError(
                f"the certificate {self.certificate} and its private key cannot be used: {error}"
            ) from None

    def policy(self) -> Policy:
        """Who may come in, with the addresses that the server listens on.

        Raises:
            InvalidOptionError: if strangers could, and nobody has said that they may.
        """
        keys = () if self.api_key_file is None else read_keys(self.api_key_file)
        addresses = [address for _, (address, _) in self.resolve()]
        is_local = all(ipaddress.ip_address(address).is_loopback for address in addresses)
        if not is_local and not keys and not self.allow_anonymous:
            raise InvalidOptionError(
                f"on {self.host}, other machines could use the server without a key: give "
                "--api-key-file FILE, or --allow-anonymous if that is what you want"
            )
        for origin in self.allow_origins:
            if not origin.startswith(("http://", "https://")) or origin.rstrip("/").count("/") != 2:
                raise InvalidOptionError(
                    f"an origin is scheme://host:port, without a path; got {origin!r}"
                )
        names = frozenset(name.lower() for name in self.allow_hosts)
        hosts = LOCAL_HOSTS | names if is_local or names else None
        origins = frozenset(origin.rstrip("/") for origin in self.allow_origins)
        return Policy(keys, hosts, origins)

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """The addresses of the host with the port, each once.

        Raises:
            InvalidOptionError: if the host is not known.
        """
        kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
        try:
            infos = socket.getaddrinfo(self.host, self.port, type=kind, flags=flags)
        except (socket.gaierror, UnicodeError) as error:
            raise InvalidOptionError(f"the host {self.host!r} is not known: {error}") from None
        found = [(info[0], (str(info[4][0]), int(info[4][1]))) for info in infos]
        return [*dict.fromkeys(found)]


@dataclass
class Server:
    """A server, bound to its port when it is made.

    Args:
        hub: the model and the limits.
        settings: where to listen, and to whom.
        listeners: entered while the server runs: protocols that have sockets of their own.

    Raises:
        InvalidOptionError: for settings that let strangers in.
        OSError: if the port is taken.
    """

    hub: Hub
    settings: Settings = field(default_factory=Settings)
    listeners: Sequence[Listener] = ()

    def __post_init__(self) -> None:
        settings, limits = self.settings, self.hub.limits
        self.policy = settings.policy()
        self._sockets = _bind(settings.resolve(), limits.send_seconds)
        self.port: int = self._sockets[0].getsockname()[1]
        app: App = build_app(self.hub, self.policy)
        config = uvicorn.Config(
            app,
            ws="websockets-sansio",
            http="h11",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer frames are refused by the dialect, in its own form; far longer ones here.
            ws_max_size=2 * limits.message_bytes,
            ws_per_message_deflate=False,  # audio gains nothing, and a bomb could hide in it
            limit_concurrency=MOST_CONNECTIONS,
            backlog=BACKLOG,
            timeout_graceful_shutdown=5,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )
        self._uvicorn = _Uvicorn(config, self.stop)
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self.settings.certificate is None else "https"
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._uvicorn.started

    def run(self) -> bool:
        """Serve until a signal or :meth:`stop`; then let the sessions write their last words.

        Returns:
            Whether all of them could.
        """
        return asyncio.run(self._run())

    def stop(self) -> None:
        """End the server in order; from any thread, or from a signal handler. Twice: at once."""
        loop, stopping = self._loop, self._stopping
        if loop is None or stopping is None:
            self._uvicorn.should_exit = True
        elif stopping.is_set():
            self._uvicorn.should_exit = self._uvicorn.force_exit = True
        else:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(stopping.set)

    async def _run(self) -> bool:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        draining = asyncio.create_task(self._drain(self._stopping))
        async with contextlib.AsyncExitStack() as stack:
            for listener in self.listeners:
                await stack.enter_async_context(listener())
            await self._uvicorn.serve(self._sockets)
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await draining
        return not self.hub.sessions

    async def _drain(self, stopping: asyncio.Event) -> bool:
        await stopping.wait()
        log.note("draining", sessions=self.hub.sessions)
        is_complete = await self.hub.drain()
        if not is_complete:
            log.warn("cut off", sessions=self.hub.sessions)
        self._uvicorn.should_exit = True
        return is_complete


class _Uvicorn(uvicorn.Server):
    """Signals ask for the end in order, instead of closing all connections."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGINT and SIGTERM."""
        self._stop()


def _bind(
    infos: Sequence[tuple[socket.AddressFamily, tuple[str, int]]], unread_seconds: float
) -> list[socket.socket]:
    """Listening sockets, all on one port.

    Args:
        unread_seconds: after which the system drops a client that reads nothing.

    Raises:
        OSError: if the port is taken.
    """
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, (address, port) in infos:
            number = sockets[0].getsockname()[1] if sockets else port
            listening = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = round(1000 * unread_seconds)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            try:
                listening.bind((address, number))
            except OSError as error:
                where = f"{address} port {number}"
                raise OSError(error.errno, error.strerror, where) from None
            listening.listen(BACKLOG)  # who comes before the loop runs waits
            sockets.append(listening)
        stack.pop_all()
        return sockets
