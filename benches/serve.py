"""Live sessions of ``voxfast serve``, in mixed dialects, at the speed of speech.

    python benches/serve.py [--sessions 32] [--minutes 30] [--rude 0.2]

Every client says a clip, reads its words, and comes again. Word latency is the time at which a
word arrives, behind the time at which its last sample was sent. Clients that are rude go away at
random, do not read, or send garbage; the others' words must be those of the clip alone all the
same. The server's memory is taken at the start, in the middle and at the end.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import voxfast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EvalItem, load_eval_items
from serving import pcm

PIECE_SECONDS = 0.08
RATE = 16_000


@dataclass(frozen=True)
class Dialect:
    """What a client says, and how it reads the answers."""

    path: str
    opening: tuple[dict[str, Any], ...]
    append: str
    ending: dict[str, Any]
    delta: str
    done: str


DIALECTS = {
    "openai": Dialect(
        "/v1/realtime?intent=transcription",
        (
            {
                "type": "session.update",
                "session": {
                    "type": "transcription",
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": RATE},
                            "turn_detection": None,
                        }
                    },
                },
            },
        ),
        "input_audio_buffer.append",
        {"type": "input_audio_buffer.commit"},
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ),
    "vllm": Dialect(
        "/v1/realtime",
        ({"type": "session.update", "model": "voxtral-numbers"},),
        "input_audio_buffer.append",
        {"type": "input_audio_buffer.commit", "final": True},
        "transcription.delta",
        "transcription.done",
    ),
    "mistral": Dialect(
        "/v1/audio/transcriptions/realtime",
        (),
        "input_audio.append",
        {"type": "input_audio.end"},
        "transcription.text.delta",
        "transcription.done",
    ),
}


@dataclass
class Result:
    """What the clients have seen."""

    latencies: list[float] = field(default_factory=list)
    clips: int = 0
    wrong: int = 0
    rude: Counter[str] = field(default_factory=Counter)


async def speak(socket: ClientConnection, dialect: Dialect, data: bytes, begin: float) -> None:
    size = int(PIECE_SECONDS * RATE) * 2
    for number, at in enumerate(range(0, len(data), size), 1):
        await asyncio.sleep(begin + number * PIECE_SECONDS - time.perf_counter())
        audio = base64.b64encode(data[at : at + size]).decode()
        await socket.send(json.dumps({"type": dialect.append, "audio": audio}))
    await socket.send(json.dumps(dialect.ending))


async def say(url: str, dialect: Dialect, item: EvalItem, text: str, result: Result) -> None:
    """One clip of a client that knows how to behave."""
    async with connect(url + dialect.path) as socket:
        for event in dialect.opening:
            await socket.send(json.dumps(event))
        begin, arrived = time.perf_counter(), []
        speaking = asyncio.create_task(speak(socket, dialect, pcm(item.audio), begin))
        async for frame in socket:
            event = json.loads(frame)
            if event["type"] == dialect.delta:
                arrived.append(time.perf_counter() - begin)
            elif event["type"] == dialect.done:
                break
        await speaking
    result.clips += 1
    result.wrong += " ".join(word["word"] for word in event["words"]) != text
    result.latencies += [
        time_ - word["end"] for time_, word in zip(arrived, event["words"], strict=True)
    ]


async def offend(url: str, dialect: Dialect, item: EvalItem, result: Result) -> None:
    """One clip of a client that does not."""
    manner = random.choice(["goes away", "does not read", "sends garbage"])
    result.rude[manner] += 1
    async with connect(url + dialect.path, close_timeout=0.1) as socket:
        for event in dialect.opening:
            await socket.send(json.dumps(event))
        if manner == "sends garbage":
            for _ in range(200):
                await socket.send(random.randbytes(random.randrange(1, 3000)))
                await socket.send('{"type": "' + "x" * random.randrange(3000))
                await asyncio.sleep(0.01)
            return
        begin = time.perf_counter()
        speaking = asyncio.create_task(speak(socket, dialect, pcm(item.audio), begin))
        leaving = random.uniform(0, item.duration) if manner == "goes away" else item.duration + 5
        await asyncio.sleep(leaving)
        speaking.cancel()
        socket.transport.abort()


async def client(
    url: str, number: int, end: float, is_rude: bool, texts: dict[str, str], result: Result
) -> None:
    items = [item for item in load_eval_items() if item.name in texts]
    dialect = [*DIALECTS.values()][number % len(DIALECTS)]
    await asyncio.sleep(random.random())
    while time.perf_counter() < end:
        item = random.choice(items)
        if is_rude:
            with contextlib.suppress(ConnectionClosed, InvalidStatus, OSError):
                await offend(url, dialect, item, result)
        else:
            await say(url, dialect, item, texts[item.name], result)


async def run(url: str, memory: Callable[[], float], options: argparse.Namespace) -> dict[str, Any]:
    with voxfast.load() as model:
        shorts = [item for item in load_eval_items() if item.duration < 30]
        texts = {i.name: voxfast.transcribe(i.audio, model=model).text for i in shorts}
    result, resident = Result(), [round(memory())]
    begin = time.perf_counter()
    end = begin + 60 * options.minutes
    n_rude = round(options.rude * options.sessions)
    clients = [
        asyncio.create_task(client(url, number, end, number < n_rude, texts, result))
        for number in range(options.sessions)
    ]
    await asyncio.sleep((end - begin) / 2)
    resident.append(round(memory()))
    await asyncio.gather(*clients)
    resident.append(round(memory()))
    return {
        "sessions": options.sessions,
        "minutes": options.minutes,
        "rude": dict(result.rude),
        "clips": result.clips,
        "wrong": result.wrong,
        "words": len(result.latencies),
        "latency_median_s": round(float(np.median(result.latencies)), 3),
        "latency_99_s": round(float(np.quantile(result.latencies, 0.99)), 3),
        "resident_mb": resident,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rude", type=float, default=0.0, help="part of the clients, 0 to 1")
    options = parser.parse_args()
    limits = ["--max-sessions", str(2 * options.sessions), "--requests-per-minute", "0"]
    command = [sys.executable, "-m", "voxfast", "serve", "--port", "0", *limits]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if found := re.search(r"http(://\S+:\d+);", line):
                    break
            else:
                raise SystemExit(f"the server did not start: {server.wait()}")
            # The log is read, so that the server never waits for its reader.
            discarded = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)

            def memory() -> float:
                pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
                return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

            figures = asyncio.run(run(f"ws{found[1]}", memory, options))
            print(json.dumps(figures))
        finally:
            server.terminate()
        discarded.wait()
    print(f"the server ended with {server.returncode}", file=sys.stderr)
    if server.returncode or figures["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
