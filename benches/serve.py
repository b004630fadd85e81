"""Sessions of ``voxfast serve`` in mixed dialects, at the speed of speech.

    python benches/serve.py [--sessions 32] [--minutes 30] [--rude 0.2]

A sixth of the clients each speaks OpenAI's realtime interface, vLLM's, Mistral's, Deepgram's and
Wyoming, live, in pieces of 80 ms; the others upload files, one per length of a file. Every client
says a clip, reads its words, and comes again with another. Clients that are rude go away at
random, do not read, or send garbage, in all dialects in turn; the others' words must be those of
the clip alone all the same.

The result is JSON. Per dialect: clips, those whose words were wrong, and the latency of words,
which is the time at which a word arrives, behind its end in the live audio; for files, the time
from the end of the upload to the text. In all: memory of the server at the start, after each tenth
of the run, and at the end, when all clients have left; its lag, which is the audio that waited
when a piece of it was begun; and how late the clients themselves were with their audio: latencies
count from when it was due. Exit code 1 if a word was wrong, a client failed, or the server did.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from serve_clients import DIALECTS, RATE, Address, Live, upload, upload_rudely
from websockets.exceptions import WebSocketException

import voxfast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import load_eval_items
from serving import pcm

PIECE_SECONDS = 0.08
PIECE_BYTES = round(PIECE_SECONDS * RATE) * 2
FILES = "upload"
MANNERS = ("goes away", "does not read", "sends garbage")


@dataclass(frozen=True)
class Clip:
    """A recording, and what a plain session hears in it.

    Attributes:
        data: samples of 16 bits.
        file: the same as WAV.
        ends: of its words, in seconds.
    """

    data: bytes
    file: bytes
    seconds: float
    text: str
    ends: tuple[float, ...]


@dataclass
class Seen:
    """What the clients of a dialect have seen; latencies in seconds."""

    clips: int = 0
    wrong: int = 0
    latencies: list[float] = field(default_factory=list)


class Load:
    """The clients of one run."""

    def __init__(self, address: Address, clips: list[Clip]) -> None:
        self._address, self._clips = address, clips
        self.seen: dict[str, Seen] = {name: Seen() for name in (*DIALECTS, FILES)}
        self.rude: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.late: list[float] = []
        self._rude_turn = itertools.cycle(self.seen)

    async def client(self, number: int, end: float, *, is_rude: bool) -> None:
        """One clip after the other, until the end."""
        names = [*self.seen]
        await asyncio.sleep(random.random())
        while time.perf_counter() < end:
            clip = random.choice(self._clips)
            if is_rude:
                with contextlib.suppress(WebSocketException, OSError):
                    await self._offend(next(self._rude_turn), clip)
                continue
            name = names[number % len(names)]
            try:
                text = await (self._upload(clip) if name == FILES else self._say(name, clip))
            except Exception as error:
                self.failed[f"{name}: {type(error).__name__}: {error}"[:200]] += 1
                await asyncio.sleep(1)
                continue
            self.seen[name].clips += 1
            self.seen[name].wrong += text.split() != clip.text.split()

    async def _say(self, name: str, clip: Clip) -> str:
        """A clip, live; its text."""
        arrived: list[float] = []
        text = None
        async with DIALECTS[name](self._address) as live:
            begin = time.perf_counter()
            speaking = asyncio.create_task(self._speak(live, clip, begin))
            async for answer in live.answers():
                if isinstance(answer, str):
                    text = answer
                    break
                arrived += [time.perf_counter() - begin] * answer
            await speaking
        if text is None:
            raise RuntimeError("the connection ended without the text")
        # Unequal numbers only where the words are wrong, which is counted.
        latencies = (time_ - end for time_, end in zip(arrived, clip.ends, strict=False))
        self.seen[name].latencies += latencies
        return text

    async def _speak(self, live: Live, clip: Clip, begin: float) -> None:
        for number, at in enumerate(range(0, len(clip.data), PIECE_BYTES), 1):
            due = begin + number * PIECE_SECONDS
            await asyncio.sleep(due - time.perf_counter())
            await live.say(clip.data[at : at + PIECE_BYTES])
            self.late.append(time.perf_counter() - due)
        await live.end()

    async def _upload(self, clip: Clip) -> str:
        begin = time.perf_counter()
        text = await upload(self._address, clip.file)
        took = time.perf_counter() - begin
        self.seen[FILES].latencies.append(took)
        await asyncio.sleep(max(0.0, clip.seconds - took))
        return text

    async def _offend(self, name: str, clip: Clip) -> None:
        """A clip of a client that does not know how to behave."""
        manner = random.choice(MANNERS)
        self.rude[f"{name} {manner}"] += 1
        staying = random.uniform(0, clip.seconds) if manner == "goes away" else clip.seconds + 5
        if name == FILES:
            await upload_rudely(self._address, manner, clip.file, staying)
            return
        async with DIALECTS[name](self._address) as live:
            if manner == "sends garbage":
                for _ in range(200):
                    await live.send_garbage()
                    await asyncio.sleep(0.01)
                return
            speaking = asyncio.create_task(self._speak(live, clip, time.perf_counter()))
            await asyncio.sleep(staying)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            live.abort()

    def figures(self) -> dict[str, Any]:
        """What was seen."""
        return {
            "dialects": {
                name: {
                    "clips": seen.clips,
                    "wrong": seen.wrong,
                    **({} if name == FILES else {"words": len(seen.latencies)}),
                    "latency_s": spread(seen.latencies),
                }
                for name, seen in self.seen.items()
            },
            "clips": sum(seen.clips for seen in self.seen.values()),
            "wrong": sum(seen.wrong for seen in self.seen.values()),
            "latency_s": spread(
                [s for name, seen in self.seen.items() if name != FILES for s in seen.latencies]
            ),
            "failed": dict(self.failed),
            "rude": dict(sorted(self.rude.items())),
            "clients_late_s": spread(self.late),
        }


def spread(seconds: list[float]) -> dict[str, float] | None:
    """Median and 99 % quantile."""
    if not seconds:
        return None
    middle, most = np.quantile(seconds, (0.5, 0.99))
    return {"median": round(float(middle), 3), "99 %": round(float(most), 3)}


class Process:
    """The server.

    Attributes:
        complaints: lines of its log that are more than notes.
    """

    def __init__(self, sessions: int) -> None:
        options = ["--port", "0", "--wyoming", "0", "--requests-per-minute", "0"]
        options += ["--max-sessions", str(2 * sessions)]
        command = [sys.executable, "-m", "voxfast", "serve", *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self._lines = self._process.stderr
        self.complaints: list[str] = []
        self.address = Address(
            self._port(r"http://127.0.0.1:(\d+)"), self._port(r'"wyoming".*"port": (\d+)')
        )
        # The log is read, so that the server never waits for its reader.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _port(self, pattern: str) -> int:
        for line in self._lines:
            if found := re.search(pattern, line):
                return int(found[1])
        raise SystemExit(f"the server did not start: {self._process.wait()}")

    def _read(self) -> None:
        self.complaints += [line for line in self._lines if '"level": "info"' not in line]

    def resident_mb(self) -> int:
        """Its memory now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Samples by name and the values of their labels."""
        url = f"http://127.0.0.1:{self.address.http}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name][tuple(sample.labels.values())] = sample.value
        return found

    def end(self) -> int:
        """End it in order; its exit code."""
        self._process.terminate()
        code = self._process.wait(60)
        self._reader.join()
        return code


def lag(metrics: dict[str, dict[tuple[str, ...], float]]) -> dict[str, float] | None:
    """Median and 99 % of a histogram of all doors, by linear interpolation in a bucket."""
    counts: Counter[float] = Counter()
    for (_, bound), count in metrics.get("voxfast_lag_seconds_bucket", {}).items():
        counts[float(bound)] += round(count)
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return None

    def quantile(part: float) -> float:
        wanted, below, lower = part * counts[bounds[-1]], 0, 0.0
        for bound in bounds:
            if counts[bound] >= wanted:
                if np.isinf(bound):
                    break
                inside = (wanted - below) / (counts[bound] - below)
                return round(lower + inside * (bound - lower), 3)
            below, lower = counts[bound], bound
        return lower  # or more

    return {"median": quantile(0.5), "99 %": quantile(0.99)}


def load_clips() -> list[Clip]:
    """The short evaluation clips."""
    return [*_clips()]


def _clips() -> Iterator[Clip]:
    with voxfast.load() as model:
        for item in load_eval_items():
            if item.duration < 30:
                data = pcm(item.audio)
                samples = np.frombuffer(data, "<i2")
                heard = voxfast.transcribe(samples, model=model)
                file = io.BytesIO()
                soundfile.write(file, samples, RATE, format="WAV")
                ends = tuple(word.end for word in heard.words)
                yield Clip(data, file.getvalue(), item.duration, heard.text, ends)


async def run(server: Process, clips: list[Clip], options: argparse.Namespace) -> dict[str, Any]:
    load = Load(server.address, clips)
    resident, cpu = [server.resident_mb()], server.cpu_seconds()
    begin = time.perf_counter()
    seconds = 60 * options.minutes
    n_rude = round(options.rude * options.sessions)
    clients = [
        asyncio.create_task(load.client(number, begin + seconds, is_rude=number < n_rude))
        for number in range(options.sessions)
    ]
    for tenth in range(1, 11):
        await asyncio.sleep(begin + tenth * seconds / 10 - time.perf_counter())
        resident.append(server.resident_mb())
    cpu = server.cpu_seconds() - cpu
    await asyncio.gather(*clients)
    metrics = await asyncio.to_thread(server.metrics)
    return {
        "sessions": options.sessions,
        "minutes": options.minutes,
        **load.figures(),
        "lag_s": lag(metrics),
        "errors": {" ".join(k): round(n) for k, n in metrics["voxfast_errors_total"].items()},
        "passes": round(metrics["voxfast_passes_total"][()]),
        "rows_per_pass": round(
            metrics["voxfast_rows_total"][()] / metrics["voxfast_passes_total"][()], 2
        ),
        "server_cores": round(cpu / seconds, 2),
        "resident_mb": [*resident, server.resident_mb()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rude", type=float, default=0.0, help="part of the clients, 0 to 1")
    options = parser.parse_args()
    clips = load_clips()
    server = Process(options.sessions)
    try:
        figures = asyncio.run(run(server, clips, options))
    finally:
        code = server.end()
    figures |= {"complaints": len(server.complaints), "exit_code": code}
    print(json.dumps(figures, indent=1))
    for line in server.complaints[:10]:
        print(line, end="", file=sys.stderr)
    if code or figures["wrong"] or figures["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
