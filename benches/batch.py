"""Batches: throughput, Ray's overhead, memory, a recording of ten hours, and archives on paper.

    python benches/batch.py throughput [--recordings 24] [--seconds 60]
    python benches/batch.py ray [--recordings 24] [--seconds 60]
    python benches/batch.py memory [--recordings 2000] [--seconds 2]
    python benches/batch.py long [--hours 10]
    python benches/batch.py driver [--recordings 2000]
    python benches/batch.py simulate [--hours 100000] [--machines 10 100] [--speed 6]

``throughput`` races two workers of one thread each against one; ``ray`` two actors against two
workers, on the same recordings. ``memory`` and ``long`` watch one worker. ``driver`` writes results
as fast as it can, without any model: what one driver can take from a cluster. ``simulate`` draws an
archive and hands it out, with machines of different speeds that vanish now and then. The files
are made in a temporary folder (TMPDIR), ten hours take 0.6 GB.
"""

import argparse
import heapq
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from voxfast.audio import SAMPLE_RATE
from voxfast.batch import Cluster, Progress, transcribe_files
from voxfast.batch.files import write_whole
from voxfast.batch.index import Index

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EVAL_FOLDER

CLIP = EVAL_FOLDER / "eval_long_180s.flac"
LONGEST_HOURS = 10.0


def clips(folder: Path, count: int, seconds: float) -> None:
    """Recordings of one length, of ten different parts of the clip."""
    speech, _ = soundfile.read(CLIP, dtype="int16")
    size = round(seconds * SAMPLE_RATE)
    folder.mkdir()
    for i in range(min(10, count)):
        part = np.take(speech, range(i * size // 2, i * size // 2 + size), mode="wrap")
        soundfile.write(folder / f"{i}.flac", part, SAMPLE_RATE)
    for i in range(10, count):
        shutil.copy(folder / f"{i % 10}.flac", folder / f"{i}.flac")


def timed(archive: Path, output: Path, options: argparse.Namespace, **workers: Any) -> Progress:
    """An archive from nothing."""
    shutil.rmtree(output, ignore_errors=True)
    return transcribe_files([archive], output, model=options.model, **workers)


def race(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Two ways to do the same, in turn: three times each, the best counts."""
    archive = folder / "archive"
    clips(archive, options.recordings, options.seconds)
    if options.what == "ray":
        import ray

        ray.init(address="local", num_cpus=2, include_dashboard=False)
        ways: dict[str, dict[str, Any]] = {
            "two workers": {"workers": 2},
            "two actors": {"cluster": Cluster(actors=(2, 2))},
        }
    else:
        ways = {"one worker": {"workers": 1}, "two workers": {"workers": 2}}
    os.environ["VOXFAST_NUM_THREADS"] = "1"
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, workers in ways.items():
            state = timed(archive, folder / "out", options, **workers)
            if state.failed:
                raise SystemExit(f"{name}: {state.failed} recordings failed")
            best[name] = min(best.get(name, np.inf), state.elapsed_seconds)
    first, second = best.values()
    return {
        "audio_seconds": options.recordings * options.seconds,
        "seconds": {name: round(seconds, 2) for name, seconds in best.items()},
        "ratio": round(first / second, 3),
    }


def resident_mb(pid: int) -> float:
    """Memory of a process; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0]) / 1024 if found else 0.0


def workers_mb() -> float:
    """Memory of this process's children."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return sum(resident_mb(int(child)) for child in children)


def memory(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Memory of the worker and of the driver over many recordings."""
    clips(folder / "archive", options.recordings, options.seconds)
    seen: list[tuple[int, float, float]] = []

    def watch(state: Progress) -> None:
        if state.done and state.done % max(1, state.chosen // 10) == 0:
            seen.append((state.done, round(workers_mb(), 1), round(resident_mb(os.getpid()), 1)))

    state = timed(folder / "archive", folder / "out", options, workers=1, progress=watch)
    return {
        "recordings": state.done,
        "failed": state.failed,
        "done, worker_mb, driver_mb": seen,
    }


def long(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """One recording of many hours."""
    speech, _ = soundfile.read(CLIP, dtype="int16")
    archive = folder / "archive"
    archive.mkdir()
    with soundfile.SoundFile(archive / "long.flac", "w", SAMPLE_RATE, 1) as file:
        for _ in range(round(options.hours * 3600 / (len(speech) / SAMPLE_RATE))):
            file.write(speech)
    seen: list[float] = []
    stop = False

    def watch() -> None:
        while not stop:
            seen.append(workers_mb())
            time.sleep(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        state = timed(archive, folder / "out", options, workers=1)
    finally:
        stop = True
        watcher.join()
    line = json.loads((folder / "out" / "index.jsonl").read_text())
    part = max(1, len(seen) // 10)
    return {
        "hours": line["duration"] / 3600,
        "error": line["error"],
        "words": line["words"],
        "speed": round(state.speed, 1),
        "worker_mb_by_tenths": [round(max(seen[i : i + part])) for i in range(0, len(seen), part)],
        "json_mb": sum(path.stat().st_size for path in (folder / "out").rglob("*.json")) / 1e6,
    }


def driver(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Results that one driver writes in a second: a file of 30 min of speech and its line."""
    text = "x" * 400_000
    line = {"id": "", "path": "x" * 200, "error": None, "files": [], "model": "m", "options": {}}
    begin = time.perf_counter()
    with Index(folder) as index:
        for i in range(options.recordings):
            write_whole(folder / f"{i % 100}" / f"{i}.json", text)
            index.add({**line, "id": str(i)})
    seconds = time.perf_counter() - begin
    return {"results_a_second": round(options.recordings / seconds, 1), "bytes_each": len(text)}


def simulate(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Hours that archives take, beside total work ÷ total speed.

    Recordings have log-normal lengths (median 20 min, mean 33 min, at most ten hours); machines
    have speeds that differ by ±15 % (standard deviation), and each vanishes once in ``--lifetime``
    hours: its recording is begun again by another machine, and a new machine comes 5 min later.
    """
    chance = random.Random(1)
    lengths, total = [], 0.0
    while total < options.hours:
        lengths.append(min(LONGEST_HOURS, chance.lognormvariate(-1.1, 1.0)))
        total += lengths[-1]
    found = {}
    for machines in options.machines:
        for order in ("as they come", "large first"):
            queue = sorted(lengths) if order == "large first" else lengths[::-1]
            hours, lost, speed = _play(queue, machines, options, random.Random(2))
            ideal = total / speed
            found[f"{machines} machines, {order}"] = {
                "hours": round(hours, 1),
                "days": round(hours / 24, 2),
                "over_ideal": f"{100 * (hours / ideal - 1):.2f} %",
                "lost_hours_of_audio": round(lost),
            }
    return {"recordings": len(lengths), "audio_hours": round(sum(lengths)), "runs": found}


def _play(
    queue: list[float], machines: int, options: argparse.Namespace, chance: random.Random
) -> tuple[float, float]:
    """Hours until everything is done, and hours of audio that were begun in vain."""
    free = [(0.0, i, options.speed * max(0.3, chance.gauss(1.0, 0.15))) for i in range(machines)]
    total_speed = sum(speed for _, _, speed in free)
    heapq.heapify(free)
    end = lost = 0.0
    again: list[tuple[float, float]] = []  # (when it was lost, its length)
    while queue or again:
        now, i, speed = heapq.heappop(free)
        if again and again[0][0] <= now:
            length = heapq.heappop(again)[1]
        elif queue:
            length = queue.pop()
        else:  # only losses of the future are left: wait for the next
            heapq.heappush(free, (again[0][0], i, speed))
            continue
        took = length / speed
        life = chance.expovariate(1 / options.lifetime)
        if life < took:
            lost += life * speed
            heapq.heappush(again, (now + life, length))
            heapq.heappush(free, (now + life + 5 / 60, i, speed))
        else:
            end = max(end, now + took)
            heapq.heappush(free, (now + took, i, speed))
    return end, lost, total_speed


def main() -> None:
    kinds = {
        "throughput": race,
        "ray": race,
        "memory": memory,
        "long": long,
        "driver": driver,
        "simulate": simulate,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--model", default="voxtral-numbers")
    parser.add_argument("--recordings", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--machines", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--speed", type=float, default=6.0, help="of a machine, × real time")
    parser.add_argument("--lifetime", type=float, default=24.0, help="hours until one vanishes")
    options = parser.parse_args()
    is_race = options.what in ("throughput", "ray")
    options.recordings = options.recordings or (24 if is_race else 2000)
    options.seconds = options.seconds or (60.0 if is_race else 2.0)
    options.hours = options.hours or (100_000 if options.what == "simulate" else LONGEST_HOURS)
    with tempfile.TemporaryDirectory(prefix="voxfast-batch-") as folder:
        print(json.dumps(kinds[options.what](options, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
