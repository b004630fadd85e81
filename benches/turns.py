"""Turns and skipped silence: how late last words are, and what silence costs.

    python benches/turns.py [--model MODEL ...] [--clips 40] [--first-ms MS] [--json FILE]

The evaluation clips of tests/data, one after the other in one stream with 1.5 s of silence
behind each, in chunks of 80 ms:

- for endpoints of 300, 500 and 800 ms: from the true end of a clip's last word to the moment at
  which it was returned, in seconds of audio, the time of computing not included; and the ends of
  speech within a clip whose pause was shorter than the endpoint, which would be cuts;
- with and without ``skip_silence``: word error rates, errors of the words' ends, processor time
  per second of audio, for the stream as it is and for one that is half silence, half a minute at
  a time; clips of 20 s of noise: words written.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EvalItem, load_eval_items
from rejection import KINDS, make_noise

import voxfast
from voxfast.audio import SAMPLE_RATE
from voxfast.bench.scoring import score
from voxfast.timed import Word
from voxfast.vad import SpeechEnded

CHUNK = 1280  # samples, 80 ms
PAUSE = 1.5  # seconds behind each clip
ENDPOINTS_MS = (300, 500, 800)
GROUP = 6  # clips before a silence as long as they are
NOISE_DB = -25
NOISE_SECONDS = 20

Audio = NDArray[np.float32]


class Talk(NamedTuple):
    """Clips with silence behind each: the samples, and what is said from when to when.

    Attributes:
        clips: the words of each clip, in seconds of the talk.
    """

    audio: Audio
    clips: list[list[Word]]


class Run(NamedTuple):
    """What a session returned, and when.

    Attributes:
        words: with the second of audio that had been inserted when each was returned.
        ends: seconds at which speech was said to end.
        seconds: of processor time.
    """

    words: list[tuple[Word, float]]
    ends: list[float]
    seconds: float


def talk(items: Sequence[EvalItem], pause: float, group: int = 1) -> Talk:
    """Clips with ``pause`` seconds of silence behind each ``group`` of them."""
    parts, clips, at = [], [], 0.0
    for number, item in enumerate(items, 1):
        clips.append([Word(f" {w.text}", at + w.start, at + w.end) for w in item.words])
        parts.append(item.audio)
        if number % group == 0 or number == len(items):
            parts.append(np.zeros(int(pause * SAMPLE_RATE), np.float32))
        at = sum(map(len, parts)) / SAMPLE_RATE
    return Talk(np.concatenate(parts), clips)


def run(model: voxfast.Model, audio: Audio, first_ms: int, **options: Any) -> Run:
    if not model.delays_ms:
        options |= {"language": "en", "tuning": voxfast.Qwen3Tuning(first_ms=first_ms)}
    words, ends = [], []
    with model.session(**options) as session:
        begin = time.process_time()
        for start in range(0, len(audio) + CHUNK, CHUNK):
            chunk = audio[start : start + CHUNK]
            if len(chunk):
                session.insert(chunk)
            inserted = min(start + CHUNK, len(audio)) / SAMPLE_RATE
            for event in session.events(finish=len(chunk) == 0):
                if isinstance(event, Word):
                    words.append((event, inserted))
                elif isinstance(event, SpeechEnded):
                    ends.append(event.time)
        return Run(words, ends, time.process_time() - begin)


def lateness(said: Talk, found: Run) -> list[float]:
    """Of the last word of each clip whose last word was found, in seconds."""
    late = []
    for clip in said.clips:
        if not clip:
            continue
        last = clip[-1]
        near = [at for word, at in found.words
                if word.text == last.text and abs(word.end - last.end) < 0.3]  # fmt: skip
        if near:
            late.append(near[0] - last.end)
    return late


def cuts(said: Talk, found: Run, endpoint_ms: float) -> int:
    """Ends of speech in a pause between two words that is shorter than the endpoint."""
    words = [word for clip in said.clips for word in clip]
    short = [(a.end, b.start) for a, b in pairwise(words) if b.start - a.end < endpoint_ms / 1000]
    return sum(any(a - 0.2 < end < b for a, b in short) for end in found.ends)


def measure(
    model: voxfast.Model, items: Sequence[EvalItem], seed: int, first_ms: int
) -> dict[str, Any]:
    said = talk(items, PAUSE)
    rows: dict[str, Any] = {"endpoints": [], "silence": []}
    for endpoint_ms in ENDPOINTS_MS:
        found = run(model, said.audio, first_ms, endpoint_ms=endpoint_ms)
        late = lateness(said, found)
        rows["endpoints"].append({
            "endpoint_ms": endpoint_ms,
            "turns": len(late),
            "median": float(np.median(late)),
            "latest_95": float(np.percentile(late, 95)),
            "cuts": cuts(said, found, endpoint_ms),
        })  # fmt: skip
    half = talk(items, GROUP * sum(item.duration for item in items) / len(items), GROUP)
    noise = [make_noise(kind, NOISE_DB, NOISE_SECONDS, seed) for kind in KINDS]
    for skip in (False, True):
        found, halved = (
            run(model, part.audio, first_ms, skip_silence=skip) for part in (said, half)
        )
        in_noise = [run(model, one, first_ms, skip_silence=skip).words for one in noise]
        words = [word for word, _ in found.words]
        result = score([[w for clip in said.clips for w in clip]], [words])
        rows["silence"].append({
            "skip_silence": skip,
            "word_error_rate": result.word_error_rate,
            "words": result.n_words,
            "end_error": result.end.mean_absolute,
            "seconds_per_second": found.seconds / (len(said.audio) / SAMPLE_RATE),
            "half_silence": halved.seconds / (len(half.audio) / SAMPLE_RATE),
            "words_in_noise": sum(map(len, in_noise)),
        })  # fmt: skip
    return rows


def show(name: str, rows: dict[str, Any], console: Console) -> None:
    table = Table(title=name)
    for title in ("endpoint", "turns", "last word after, median", "95 %", "cuts"):
        table.add_column(title, justify="right")
    for row in rows["endpoints"]:
        table.add_row(f"{row['endpoint_ms']} ms", str(row["turns"]), f"{row['median']:.2f} s",
                      f"{row['latest_95']:.2f} s", str(row["cuts"]))  # fmt: skip
    console.print(table)
    table = Table()
    for title in ("skip_silence", "word errors", "word ends", "CPU s per s", "half silence",
                  "words in noise"):  # fmt: skip
        table.add_column(title, justify="right")
    for row in rows["silence"]:
        table.add_row(str(row["skip_silence"]), f"{row['word_error_rate']:.2%}",
                      f"{1000 * row['end_error']:.0f} ms", f"{row['seconds_per_second']:.4f}",
                      f"{row['half_silence']:.4f}", str(row["words_in_noise"]))  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="+", default=[voxfast.DEFAULT_MODEL])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--first-ms", type=int, default=0, help="of Qwen3-ASR's tuning")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    items = load_eval_items()[: min(args.clips, 40)]
    results = {}
    for name in args.model:
        with voxfast.load(name) as model:
            results[name] = measure(model, items, args.seed, args.first_ms)
        show(name, results[name], console)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
