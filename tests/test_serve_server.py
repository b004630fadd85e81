"""The server as a process, and clients that go away, send garbage, or come in numbers."""

import asyncio
import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import EvalItem
from serving import KEY, Running, fetch, key_file, pcm, pieces, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import voxfast
from voxfast.serve.hub import Hub, Limits
from voxfast.serve.live import LiveSession
from voxfast.serve.server import Server, Settings
from voxfast.serve.transcriptions import PATH

UPDATE = json.dumps({"type": "session.update", "model": "voxtral-numbers"})
FINAL = json.dumps({"type": "input_audio_buffer.commit", "final": True})


@pytest.fixture(scope="module")
def server(numbers: voxfast.Model) -> Iterator[Running]:
    limits = Limits(sessions=4, idle_seconds=20, requests_per_minute=0, drain_seconds=10)
    with serving(numbers, limits) as running:
        yield running


@pytest.fixture(scope="module")
def clip(eval_items: list[EvalItem]) -> np.ndarray:
    return eval_items[1].audio


def append(data: bytes) -> str:
    audio = base64.b64encode(data).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def transcribe(server: Running, audio: np.ndarray) -> str:
    """What a vLLM-style client is told."""
    with connect(f"{server.ws}/v1/realtime") as client:
        client.recv()
        client.send(UPDATE)
        for piece in pieces(pcm(audio)):
            client.send(append(piece))
        client.send(FINAL)
        return str(until(client, "transcription.done")["text"])


def until(client: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        event = json.loads(client.recv(timeout=60))
        if event["type"] == kind:
            return dict(event)


def plain(numbers: voxfast.Model, audio: np.ndarray) -> str:
    return voxfast.transcribe(audio, model=numbers).text


def wait_for_no_session(server: Running) -> None:
    end = time.monotonic() + 30
    while server.hub.sessions and time.monotonic() < end:
        time.sleep(0.01)
    assert server.hub.sessions == 0


def upload(server: Running, data: bytes, **fields: str) -> tuple[int, Any, Any]:
    """A form, as a client would send it."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = b"".join([*parts, head, data, b"\r\n--b--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return fetch(urllib.request.Request(server.http + PATH, body, headers))


def test_files(server: Running, numbers: voxfast.Model, eval_items: list[EvalItem]) -> None:
    item = eval_items[1]
    whole = voxfast.transcribe(item.path, model=numbers)
    status, body, headers = upload(server, item.path.read_bytes(), response_format="verbose_json")
    assert status == 200
    assert body["text"] == whole.text
    assert body["segments"][0]["end"] == round(whole.words[-1].end, 3)
    assert headers["x-request-id"]
    wait_for_no_session(server)


@pytest.mark.parametrize(
    ("data", "fields", "code", "param"),
    [
        (b"", {}, "invalid_audio", "file"),
        (b"not audio at all, but some text", {}, "invalid_audio", "file"),
        (b"fLaC" + bytes(100), {}, "invalid_audio", "file"),
        (b"", {"model": "other"}, "model_not_found", "model"),
        (b"", {"stream": "maybe"}, "invalid_value", "stream"),
    ],
)
def test_files_that_are_refused(
    server: Running, data: bytes, fields: dict[str, str], code: str, param: str
) -> None:
    status, body, headers = upload(server, data, **fields)
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert status == (404 if code == "model_not_found" else 400)
    assert headers["x-should-retry"] == "false"
    wait_for_no_session(server)


def test_options_that_the_model_does_not_take(server: Running, eval_items: list[EvalItem]) -> None:
    data = eval_items[1].path.read_bytes()
    for field, value, param in (("prompt", "x", "prompt"), ("keywords[]", "a\0b", "keywords")):
        status, body, _ = upload(server, data, **{field: value})
        assert (status, body["error"]["param"]) == (400, param)
    assert upload(server, data, **{"keywords[]": "door"})[0] == 200
    assert upload(server, data, language="en")[0] == 200


def test_a_file_that_is_cut_off_gives_its_words_and_an_error(
    server: Running, numbers: voxfast.Model, clip: np.ndarray
) -> None:
    data = pcm(clip)
    header = (
        b"RIFF"
        + (36 + 2 * len(data)).to_bytes(4, "little")
        + b"WAVEfmt "
        + bytes.fromhex("10000000 0100 0100 803e0000 007d0000 0200 1000")
    )
    wav = header + b"data" + (2 * len(data)).to_bytes(4, "little") + data
    status, body, _ = upload(server, wav)
    assert (status, body["error"]["code"]) == (400, "invalid_audio")
    _, body, _ = upload(server, wav, stream="true")
    *words, last = [json.loads(line[6:]) for line in body.split("\n\n") if line]
    assert "".join(word["delta"] for word in words) == plain(numbers, clip)
    assert last["error"]["code"] == "invalid_audio"


def test_clients_that_go_away_free_their_seats(
    server: Running, numbers: voxfast.Model, clip: np.ndarray
) -> None:
    for _ in range(6):  # there are four seats
        with connect(f"{server.ws}/v1/realtime") as client:
            client.recv()
            client.send(UPDATE)
            client.send(append(pcm(clip)))
            client.socket.shutdown(socket.SHUT_RDWR)  # without a word of good-bye
            wait_for_no_session(server)
    assert transcribe(server, clip) == plain(numbers, clip)


def test_an_uploader_that_goes_away(server: Running, eval_items: list[EvalItem]) -> None:
    long = next(item for item in eval_items if "long" in item.name)
    way = socket.create_connection(("127.0.0.1", server.server.port))
    data = long.path.read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"
    way.sendall(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    before = counted(server, 'voxfast_audio_seconds_total{door="transcriptions"}')
    while counted(server, 'voxfast_audio_seconds_total{door="transcriptions"}') == before:
        time.sleep(0.01)
    way.close()
    wait_for_no_session(server)
    heard = counted(server, 'voxfast_audio_seconds_total{door="transcriptions"}') - before
    assert heard < long.duration


def counted(server: Running, name: str) -> float:
    """A figure of /metrics; 0 if it is not there yet."""
    text = server.hub.metrics.text().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_passes_of_the_model_are_counted(server: Running, clip: np.ndarray) -> None:
    figures = ("voxfast_passes_total", "voxfast_rows_total")
    passes, rows = (counted(server, name) for name in figures)
    transcribe(server, clip)
    passes, rows = (
        counted(server, "voxfast_passes_total") - passes,
        counted(server, "voxfast_rows_total") - rows,
    )
    assert 1 < passes < len(clip) / 1280 < rows


def test_faults_of_the_server_are_told_in_each_form(
    server: Running, clip: np.ndarray, eval_items: list[EvalItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(session: LiveSession, **options: bool) -> object:
        raise RuntimeError("a bug")

    monkeypatch.setattr(LiveSession, "events", fail)
    data = eval_items[1].path.read_bytes()
    status, body, headers = upload(server, data)
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert headers["x-request-id"] in body["error"]["message"]
    status, said, _ = upload(server, data, stream="true")
    assert status == 200  # which was said before
    assert json.loads(said.removeprefix("data: "))["error"]["code"] == "internal_error"
    request = urllib.request.Request(f"{server.http}/v1/listen", data)
    status, body, headers = fetch(request)
    assert (status, body["err_code"]) == (500, "INTERNAL_ERROR")
    assert body["request_id"] == headers["x-request-id"]
    with connect(f"{server.ws}/v1/listen?encoding=linear16&sample_rate=16000") as client:
        client.send(pcm(clip))
        assert json.loads(client.recv(timeout=30))["variant"] == "INTERNAL_ERROR"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
        assert client.close_code == 1011
    wait_for_no_session(server)


def test_sessions_beyond_the_limit_are_refused(server: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(f"{server.ws}/v1/realtime")).recv()
        with pytest.raises(InvalidStatus) as refused, connect(f"{server.ws}/v1/realtime"):
            pass
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"]
        body = json.loads(refused.value.response.body or b"")
        assert body["error"]["code"] == "too_many_sessions"
        status, body, _ = upload(server, b"x")
        assert (status, body["error"]["code"]) == (429, "too_many_sessions")
        assert counted(server, 'voxfast_sessions{door="realtime"}') == 4
    wait_for_no_session(server)


def test_garbage_disturbs_nobody(server: Running, numbers: voxfast.Model, clip: np.ndarray) -> None:
    garbage: list[str | bytes] = [
        *("", "{}", "[1]", "null", "\0", "[" * 50_000, '{"type": 1e999}'),
        *(b"", b"\xff" * 1000, append(b"\1"), append(b""), UPDATE[:-1]),
    ]

    def disturb() -> None:
        way = connect(f"{server.ws}/v1/realtime", close_timeout=0.2)
        with way as client, contextlib.suppress(ConnectionClosed):
            for frame in garbage * 3:
                client.send(frame)
            client.recv(timeout=5)

    threads = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert transcribe(server, clip) == plain(numbers, clip)
    for thread in threads:
        thread.join()
    for raw in (b"\0" * 100, b"GET / HTTP/9\r\n\r\n", b"GET /v1/realtime HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server.port)) as way:
            way.sendall(raw)
            assert b" 400 " in way.recv(1000)
    wait_for_no_session(server)
    assert transcribe(server, clip) == plain(numbers, clip)


def test_sessions_side_by_side(
    server: Running, numbers: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    clips = [item.audio for item in eval_items[:4]]

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(transcribe, server, c) for c in clips))

    assert asyncio.run(all_of_them()) == [plain(numbers, clip) for clip in clips]


def test_draining(numbers: voxfast.Model, clip: np.ndarray) -> None:
    with serving(numbers, Limits(drain_seconds=20)) as running:
        with connect(f"{running.ws}/v1/realtime?intent=transcription") as client:
            for piece in pieces(pcm(clip, 24_000)):
                client.send(append(piece))
            while counted(running, 'voxfast_audio_seconds_total{door="realtime"}') < 2:
                time.sleep(0.01)
            running.server.stop()
            said = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    said.append(json.loads(client.recv(timeout=30)))
            assert client.close_code == 1001
        completed = [event["transcript"] for event in said if event["type"].endswith("completed")]
        assert " ".join(completed) == plain(numbers, clip)


# -- The command


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``voxfast serve`` on a free port: the process, and the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voxfast", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://\S+:(\d+);", line):
                break
        else:
            raise AssertionError("it did not start")
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_signal_brings_the_last_words(clip: np.ndarray, tmp_path: Path) -> None:
    with command("--api-key-file", str(key_file(tmp_path))) as (process, port):
        url = f"ws://127.0.0.1:{port}/v1/realtime?api_key={KEY}"
        with connect(url) as client:
            client.recv()
            client.send(UPDATE)
            for piece in pieces(pcm(clip)):
                client.send(append(piece))
            until(client, "transcription.delta")
            process.send_signal(signal.SIGTERM)
            assert until(client, "transcription.done")["text"] == "open kitchen minus thirteen"
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=30)
        assert process.wait(30) == 0
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        events = [json.loads(line) for line in lines]
        assert {"draining", "session", "request"} <= {event["event"] for event in events}
        # Neither keys nor what was said.
        assert not any(word in line for line in lines for word in (KEY, "kitchen", "thirteen"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--api-key-file", "/nonexistent"], "cannot be read"),
        (["--host", "no such host"], "not known"),
        (["--allow-origin", "*"], "an origin is"),
        (["--certificate", "/nonexistent"], "the certificate /nonexistent"),
        (["--private-key", "/nonexistent"], "--certificate"),
    ],
)
def test_settings_that_are_refused_before_a_model_is_loaded(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from voxfast.cli import main

    monkeypatch.setattr("voxfast.serve.log.configure", lambda: None)  # it is for good
    monkeypatch.setattr("voxfast.load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(["serve", "--port", "0", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_without_the_extra_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from voxfast.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 1
    assert "pip install 'voxfast[server]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(numbers: voxfast.Model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}"):
            Server(Hub(numbers), Settings(port=port))
