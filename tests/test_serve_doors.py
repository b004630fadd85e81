"""Every door is closed to whoever does not belong: one test over all of them."""

import contextlib
import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from serving import KEY, Running, fetch, key_file, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import voxfast
from voxfast.serve.doors import DOORS
from voxfast.serve.hub import Limits
from voxfast.serve.server import Settings
from voxfast.serve.site import OPEN_PATHS
from voxfast.serve.transcriptions import PATH

ABOUT = "/page/about.json"
HTTP = ("/metrics", "/v1/models", "/v1/models/voxtral-numbers", PATH, ABOUT, "/nothing")
SOCKETS = tuple(door.path for door in DOORS)
NEEDED = {"/v1/listen": "encoding=mulaw"}
"""What the query must say on some paths."""
LIMITS = Limits(message_bytes=1000, upload_bytes=1000, requests_per_minute=0, drain_seconds=5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("keys")
    settings = Settings(
        port=0, api_key_file=key_file(folder), allow_origins=["https://app.example"]
    )
    with voxfast.load() as model, serving(model, LIMITS, settings) as running:
        yield running


def ask(
    server: Running, path: str, headers: dict[str, str], query: str = ""
) -> tuple[int, Any, Any]:
    """The status with which a door answers, 101 for an open WebSocket; its body and headers."""
    if path in SOCKETS:
        try:
            with connect(address(server, path, query), additional_headers=headers):
                return 101, None, {}
        except InvalidStatus as refused:
            response = refused.response
            return response.status_code, json.loads(response.body or b"null"), response.headers
    method = "POST" if path == PATH else "GET"
    return fetch(
        urllib.request.Request(f"{server.http}{path}{query}", headers=headers, method=method)
    )


def address(server: Running, path: str, query: str = "") -> str:
    """The URL of a WebSocket."""
    parts = [part for part in (query.removeprefix("?"), NEEDED.get(path)) if part]
    return f"{server.ws}{path}?{'&'.join(parts)}"


@pytest.mark.parametrize("path", [*HTTP, *SOCKETS])
def test_strangers(server: Running, path: str) -> None:
    with_key = {"Authorization": f"Bearer {KEY}"}
    for refused, status in (
        (ask(server, path, {}), 401),
        (ask(server, path, {"Authorization": "Bearer wrong"}), 401),
        (ask(server, path, {"X-API-Key": KEY[:-1]}), 401),
        (ask(server, path, {}, "?api_key=wrong"), 401),
        (ask(server, path, {**with_key, "Origin": "https://evil.example"}), 403),
        (ask(server, path, {**with_key, "Origin": "null"}), 403),
    ):
        assert refused[0] == status
        assert refused[1]
        assert refused[2]["x-request-id"]


@pytest.mark.parametrize("path", [*HTTP, *SOCKETS])
def test_names_that_lead_here_from_elsewhere(server: Running, path: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    if path in SOCKETS:
        way = socket.create_connection(("127.0.0.1", server.server.port))
        with way, pytest.raises(InvalidStatus) as refused:
            connect(f"ws://evil.example{path}", sock=way, additional_headers=headers).__enter__()
        assert refused.value.response.status_code == 421
    else:
        assert ask(server, path, {**headers, "Host": "evil.example"})[0] == 421


@pytest.mark.parametrize("path", [*HTTP, *SOCKETS])
def test_whoever_has_a_key(server: Running, path: str) -> None:
    welcome = {PATH: 400, "/nothing": 404, **dict.fromkeys(SOCKETS, 101)}.get(path, 200)
    own = {"Origin": server.http}
    for headers, query in (
        ({"Authorization": f"Bearer {KEY}"}, ""),
        ({"Authorization": f"Token {KEY}"}, ""),
        ({"X-API-Key": KEY, **own}, ""),
        ({"Origin": "https://app.example"}, f"?api_key={KEY}"),
    ):
        assert ask(server, path, headers, query)[0] == welcome


def test_files_of_the_page_need_no_key(server: Running) -> None:
    for path in OPEN_PATHS:
        assert server.get(path)[0] == 200
    assert server.get("/page/../about.json")[0] == 401
    assert server.get("/", Origin="https://evil.example")[0] == 403


def test_health_needs_no_key(server: Running) -> None:
    assert server.get("/health")[:2] == (200, {"status": "ok"})


def test_a_browser_that_cannot_set_headers(server: Running) -> None:
    protocols = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with connect(f"{server.ws}/v1/realtime", subprotocols=protocols) as socket:  # type: ignore[arg-type]
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv())["type"] == "session.created"


def test_other_pages_are_told_what_they_may(server: Running) -> None:
    def preflight(origin: str) -> tuple[int, Any, Any]:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return fetch(urllib.request.Request(server.http + PATH, headers=headers, method="OPTIONS"))

    status, _, headers = preflight("https://app.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
    status, _, headers = preflight("https://evil.example")
    assert status == 400
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("size", [1500, 100_000])
def test_messages_that_are_too_long(server: Running, path: str, size: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with connect(address(server, path), additional_headers=headers) as client:
        client.send("x" * size)
        said = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                said.append(client.recv(timeout=10))
        assert client.close_code == 1009
    if size < 2 * LIMITS.message_bytes:  # in the dialect's own form
        assert any("bytes" in str(frame) for frame in said)


@pytest.mark.parametrize("path", [PATH, "/v1/listen"])
def test_uploads_that_are_too_long(server: Running, path: str) -> None:
    """Without reading them, if their length is said."""

    def code(body: Any) -> str:
        return str(body["error"]["code"] if path == PATH else body["err_code"]).lower()

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=b"}
    with socket.create_connection(("127.0.0.1", server.server.port)) as way:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Length: 2000"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        way.sendall("\r\n".join([*lines, "", ""]).encode())
        way.settimeout(30)
        answer = b""
        while b"file_too_large" not in answer.lower():
            answer += (received := way.recv(10_000))
            assert received, answer
        assert answer.startswith(b"HTTP/1.1 413 ")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    chunks = (head, *(bytes(300) for _ in range(4)))  # of unknown length
    status, body, _ = fetch(urllib.request.Request(server.http + path, iter(chunks), headers))
    assert (status, code(body)) == (413, "file_too_large")
