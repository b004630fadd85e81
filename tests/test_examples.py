"""The examples run, and print what they promise."""

import contextlib
import json
import queue
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import soundfile
from serving import serving

import voxfast
from voxfast.serve.hub import Hub
from voxfast.serve.server import Server, Settings
from voxfast.serve.tcp import serve_wyoming

EXAMPLES = Path(__file__).parent.parent / "examples"
COMMAND = "turn up and open window"
NUMBERS = (
    "start please and wait eight eighty nine point two degrees fifteen seventy point two "
    "red hundred pause"
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example as a script; returns what it prints."""

    def script(name: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_file(run: Callable[..., str]) -> None:
    lines = run("transcribe_file.py").splitlines()
    assert lines[0] == NUMBERS
    assert [line.split()[2] for line in lines[1:]] == NUMBERS.split()


def test_microphone(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACE", "0")
    shown = run("microphone.py").split("\r")
    assert shown[-1].strip() == COMMAND
    assert any(line.strip().startswith("turn up [") for line in shown)


def test_turns(run: Callable[..., str]) -> None:
    *lines, last = run("turns.py").splitlines()
    turns = [line.partition(" said: ") for line in lines[1::2]]
    assert all(line.endswith(" somebody speaks") for line in lines[::2])
    assert len(turns) == 6
    assert " ".join(text for _, _, text in turns) == NUMBERS
    times = [float(line[:6]) for line in lines]
    assert times == sorted(times)
    assert last.endswith(" s of 13.27 s were silence")


def test_subtitles(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("subtitles.py")
    assert not (EXAMPLES / "audio" / "numbers.srt").exists()
    subtitles = (tmp_path / "numbers.srt").read_text()
    assert subtitles.startswith("1\n00:00:0")
    assert "start please and wait" in subtitles


def test_many_sessions(run: Callable[..., str]) -> None:
    lines = run("many_sessions.py").splitlines()
    assert len(lines) == len(list((EXAMPLES / "audio").glob("*.flac")))
    assert f"command: {COMMAND}" in lines
    assert f"numbers: {NUMBERS}" in lines


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the clients themselves
@pytest.mark.parametrize(
    ("client", "name", "lines"),
    [
        ("openai", "client_openai.py", 2),
        ("websockets", "client_vllm.py", 1),
        ("mistralai", "client_mistral.py", 1),
    ],
)
def test_clients_of_the_server(run: Callable[..., str], client: str, name: str, lines: int) -> None:
    from serving import serving

    import voxfast

    pytest.importorskip(client)
    with voxfast.load() as model, serving(model) as server:
        url = server.http if client == "openai" else server.ws
        assert run(name, "--url", url, "--pace", "0").splitlines() == [COMMAND] * lines


def test_server(run: Callable[..., str]) -> None:
    words = [json.loads(line) for line in run("server.py").splitlines()]
    assert "".join(word["text"] for word in words).strip() == COMMAND
    assert all(word["start"] <= word["end"] for word in words)


def test_a_server_whose_clients_go_away() -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = probe.getsockname()
    server = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "server.py"), str(address[1])], stderr=subprocess.PIPE
    )
    samples, _ = soundfile.read(EXAMPLES / "audio" / "command.flac", dtype="int16")
    try:
        client = None
        while client is None:
            assert server.poll() is None, "the server ended"
            with contextlib.suppress(OSError):
                client = socket.create_connection(address)
            time.sleep(0.1)
        client.sendall(samples.tobytes())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # without a word of good-bye
        with socket.create_connection(address) as client, client.makefile() as lines:
            client.sendall(samples.tobytes())
            client.shutdown(socket.SHUT_WR)
            assert "".join(json.loads(line)["text"] for line in lines).strip() == COMMAND
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=60) == (None, b"")
        assert server.returncode == 0
    finally:
        server.kill()
        server.wait()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client itself
def test_deepgram_client(run: Callable[..., str]) -> None:
    pytest.importorskip("deepgram")
    with voxfast.load() as model, serving(model) as server:
        shown = run("client_deepgram.py", "--url", server.ws, "--pace", "0")
    (final,) = (line for line in shown.replace("\r", "\n").splitlines() if " - " in line)
    start, _, end, *words = final.split()
    assert words == COMMAND.split()
    assert 0 <= float(start) < float(end) < 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client itself
def test_wyoming_client(run: Callable[..., str]) -> None:
    pytest.importorskip("wyoming")
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()

    @contextlib.asynccontextmanager
    async def listener() -> AsyncIterator[None]:
        async with serve_wyoming(server.hub, "127.0.0.1", 0) as port:
            ports.put(port)
            yield

    with voxfast.load() as model:
        server = Server(Hub(model), Settings(port=0), [listener])
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            words, whole = run(
                "client_wyoming.py", "--port", str(ports.get(timeout=30))
            ).splitlines()
        finally:
            server.stop()
            thread.join()
    assert words == whole == COMMAND


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks themselves
def test_voice_agents(run: Callable[..., str]) -> None:
    pytest.importorskip("livekit.plugins.deepgram")
    pytest.importorskip("pipecat.services.deepgram.stt")
    with voxfast.load() as model, serving(model) as server:
        said = run("client_livekit.py", "--url", server.http).split()
        assert said[3:] == COMMAND.split()
        assert run("client_pipecat.py", "--url", server.ws).strip() == COMMAND


def test_the_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = EXAMPLES.parent
    text = (root / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(root)
    exec(code, {})
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == NUMBERS
    words = [line.split() for line in lines if len(line.split()) == 4]
    assert " ".join(word[0] for word in words) == COMMAND
    assert any(line.strip() in COMMAND.split() for line in lines)  # tentative


def test_every_example_is_tested() -> None:
    tests = Path(__file__).read_text()
    assert all(f'"{path.name}"' in tests for path in EXAMPLES.glob("*.py"))
