"""Thousands of sessions opened and closed, and random chunk sizes: does memory grow?

    python benches/sessions.py [--model NAME or "tiny"] [--sessions 5000] [--chunks 2000]

Half of the sessions are finished, half are left open to be collected. The second part feeds
one session chunks of random sizes, 1 sample to 2 seconds, and watches MLX's cache of freed
memory, which is never cleared.
"""

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

import voxfast
from voxfast.bench.measure import resident_mb

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import load_eval_items
from fuzzing.tiny import write_tiny_voxtral


def open_and_close(model: voxfast.Model, count: int, audio: np.ndarray) -> dict[str, object]:
    """Memory after every tenth of the sessions."""
    rng, resident, begin = random.Random(0), [], time.perf_counter()
    for number in range(count):
        session = model.session()
        at = rng.randrange(len(audio) - 16000)
        session.feed(audio[at : at + rng.randrange(16000)])
        if number % 2:
            session.finish()
        del session
        if (number + 1) % max(1, count // 10) == 0:
            gc.collect()
            resident.append(round(resident_mb(), 1))
    return {
        "sessions": count,
        "ms_per_session": round(1000 * (time.perf_counter() - begin) / count, 2),
        "resident_mb_by_tenth": resident,
        "growth_after_the_first_tenth_mb": round(resident[-1] - resident[0], 1),
        "active_mb": round(mx.get_active_memory() / 2**20, 1),
        "cache_mb": round(mx.get_cache_memory() / 2**20, 1),
    }


def random_chunks(model: voxfast.Model, count: int, audio: np.ndarray) -> dict[str, object]:
    """The most that MLX's cache held, in each tenth of the chunks."""
    rng, most, tenths, resident = random.Random(1), 0, [], []
    with model.session() as session:
        for number in range(count):
            size = rng.choice((1, rng.randrange(1, 2000), rng.randrange(1, 32000)))
            at = rng.randrange(len(audio) - size)
            session.feed(audio[at : at + size])
            most = max(most, mx.get_cache_memory())
            if (number + 1) % max(1, count // 10) == 0:
                tenths.append(round(most / 2**20, 2))
                resident.append(round(resident_mb(), 1))
                most = 0
        heard = session.heard
    return {
        "chunks": count,
        "seconds_of_audio": round(heard),
        "cache_mb_by_tenth": tenths,
        "resident_mb_by_tenth": resident,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--chunks", type=int, default=2000)
    args = parser.parse_args()
    audio = np.concatenate([item.audio for item in load_eval_items()[:40]])
    with tempfile.TemporaryDirectory() as folder:
        tiny = args.model == "tiny"
        name = write_tiny_voxtral(Path(folder) / "tiny") if tiny else args.model
        with voxfast.load(name) as model:
            print(json.dumps(open_and_close(model, args.sessions, audio)), flush=True)
            if args.chunks:
                print(json.dumps(random_chunks(model, args.chunks, audio)), flush=True)


if __name__ == "__main__":
    main()
