"""Hours of speech with pauses through one session: memory, time per position, error rate.

    python benches/soak.py [--hours 2] [--json FILE] [--plot FILE]

The stream is made of the evaluation clips in random order, with pauses of 0.3 to 4 s of
silence or faint noise between them. It is fed in 80 ms chunks, as fast as it is taken.
"""

import argparse
import gc
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import load_eval_items
from scoring import word_error_rate

import voxfast

CHUNK = 1280
SAMPLE_RATE = 16000


@dataclass
class Minute:
    """One minute of the stream.

    Attributes:
        end: seconds of audio at its end.
        ms_per_position: median over the minute's positions.
        resident_mb: of the process, at its end.
        cache_mb: freed memory that MLX keeps for reuse.
    """

    end: float
    ms_per_position: float
    resident_mb: float
    cache_mb: float


def speech(seconds: float, seed: int = 0) -> Iterator[tuple[np.ndarray, str]]:
    """Clips and the pauses between them: (samples, what is said)."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    items = load_eval_items()
    done = 0.0
    while done < seconds:
        item = rng.choice(items[:40] if rng.random() < 0.95 else items[40:])
        pause = np.zeros(int(rng.uniform(0.3, 4.0) * SAMPLE_RATE), np.float32)
        if rng.random() < 0.5:
            pause += noise.normal(0, 1e-3, len(pause)).astype(np.float32)
        done += (len(item.audio) + len(pause)) / SAMPLE_RATE
        yield item.audio, item.transcript
        yield pause, ""


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(model: voxfast.Model, seconds: float) -> tuple[list[Minute], list[list[str]]]:
    """Returns the minutes, and [reference, hypothesis] words per ten minutes of audio."""
    minutes: list[Minute] = []
    texts: list[list[str]] = []
    steps: list[float] = []
    rest = np.zeros(0, np.float32)
    with model.session() as session:
        for samples, said in speech(seconds):
            ten = int(session.heard // 600)
            while len(texts) <= ten:
                texts.append(["", ""])
            texts[ten][0] += f" {said}"
            samples = np.concatenate([rest, samples])
            whole = len(samples) // CHUNK * CHUNK
            rest = samples[whole:]
            for i in range(0, whole, CHUNK):
                start = time.perf_counter()
                words = session.feed(samples[i : i + CHUNK])
                steps.append(time.perf_counter() - start)
                texts[ten][1] += "".join(word.text for word in words)
                if session.heard // 60 > len(minutes):
                    gc.collect()
                    minutes.append(
                        Minute(
                            session.heard,
                            1000 * float(np.median(steps)),
                            resident_mb(),
                            mx.get_cache_memory() / 2**20,
                        )
                    )
                    steps.clear()
                    if len(minutes) % 10 == 0:
                        print(asdict(minutes[-1]), flush=True)
        texts[-1][1] += "".join(word.text for word in session.finish())
    return minutes, texts


def plot(minutes: list[Minute], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    x = [minute.end / 60 for minute in minutes]
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7, 5))
    top.plot(x, [minute.ms_per_position for minute in minutes])
    top.set(ylabel="ms per 80 ms position", ylim=(0, None), title="One session, without end")
    bottom.plot(x, [minute.resident_mb for minute in minutes])
    bottom.set(ylabel="resident memory (MB)", xlabel="minutes of audio", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    with voxfast.load(args.model) as model:
        start = time.perf_counter()
        minutes, texts = soak(model, args.hours * 3600)
        seconds = time.perf_counter() - start
    rates = [word_error_rate([said], [heard]) for said, heard in texts]
    tens = [
        float(np.median([m.ms_per_position for m in minutes[i : i + 10]]))
        for i in range(0, len(minutes) - 9, 10)
    ]
    resident = [minute.resident_mb for minute in minutes[2:]]
    summary = {
        "hours": args.hours,
        "real_time_factor": seconds / (args.hours * 3600),
        "ms_per_position_by_ten_minutes": tens,
        "last_over_second_ten_minutes": tens[-1] / tens[min(1, len(tens) - 1)],
        "resident_growth_mb": resident[-1] - resident[0],
        "resident_spread_mb": max(resident) - min(resident),
        "word_error_rate_by_ten_minutes": rates,
    }
    print(json.dumps(summary, indent=2))
    if args.json:
        args.json.write_text(json.dumps(summary | {"minutes": [asdict(m) for m in minutes]}))
    if args.plot:
        plot(minutes, args.plot)


if __name__ == "__main__":
    main()
