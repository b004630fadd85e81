"""A server for tests: on a free loopback port, in a thread of this process."""

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soxr

import voxfast
from voxfast.serve.hub import Hub, Limits
from voxfast.serve.server import Server, Settings

KEY = "a-key-for-tests-0123456789"


@dataclass
class Running:
    """A server that runs."""

    server: Server
    hub: Hub

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}"

    def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        """Status, body and headers; JSON is parsed."""
        return fetch(urllib.request.Request(self.http + path, headers=headers))


def fetch(request: urllib.request.Request) -> tuple[int, Any, Any]:
    """Status, body and headers of an answer; JSON is parsed."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, body, headers = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            status, body, headers = error.code, error.read(), error.headers
    is_json = headers.get("content-type", "").startswith("application/json")
    return status, json.loads(body) if is_json else body.decode(), headers


@contextlib.contextmanager
def serving(
    model: voxfast.Model,
    limits: Limits | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Callable[[Hub], AbstractAsyncContextManager[object]]] = (),
) -> Iterator[Running]:
    """A server, until the block ends; it must end in order."""
    hub = Hub(model, limits or Limits(drain_seconds=10))
    beside = [partial(listener, hub) for listener in listeners]
    server = Server(hub, settings or Settings(port=0), beside)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(server.run()))
    thread.start()
    try:
        while thread.is_alive() and not server.is_ready:
            thread.join(0.01)
        yield Running(server, hub)
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert ended == [True]


def key_file(folder: Path) -> Path:
    """A file with :data:`KEY`."""
    path = folder / "keys"
    path.write_text(f"# for tests\n\n{KEY}\n")
    return path


def pcm(audio: np.ndarray, rate: int = 16_000) -> bytes:
    """Samples at 16 kHz as 16-bit PCM at another rate."""
    resampled = audio if rate == 16_000 else soxr.resample(audio, 16_000, rate)
    return (np.clip(resampled, -1, 1) * 32767).astype("<i2").tobytes()


def pieces(data: bytes, size: int = 9_600) -> list[bytes]:
    """Pieces of this many bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]
