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
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException

import voxfast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from live_clients import (
    DIALECTS,
    PIECE_BYTES,
    PIECE_SECONDS,
    Address,
    Clip,
    Live,
    load_clips,
    upload,
    upload_rudely,
)
from serve_process import Figures, ServerProcess

FILES = "upload"
MANNERS = ("goes away", "does not read", "sends garbage")


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


def lag(metrics: Figures) -> dict[str, float] | None:
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


async def run(
    server: ServerProcess, clips: list[Clip], options: argparse.Namespace
) -> dict[str, Any]:
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
    with voxfast.load() as model:
        clips = load_clips(model)
    limits = ["--requests-per-minute", "0", "--max-sessions", str(2 * options.sessions)]
    server = ServerProcess(limits)
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
