"""Hours of speech with pauses through sessions: memory, time per step, errors, clock.

    python benches/soak.py [--model NAME] [--hours 2] [--sessions 1] [--json FILE] [--plot FILE]
    python benches/soak.py --draw FILE [FILE ...] --plot FILE

The stream is made of the evaluation clips in random order, with pauses of 0.3 to 4 s of
silence or faint noise between them. It is fed as fast as it is taken, in chunks of one step:
80 ms to Voxtral, a position; 500 ms to Qwen3-ASR, an inference. Several sessions hear streams of
their own, and share the steps that are measured. ``--draw`` measures nothing: it draws what
``--json`` wrote, a column for each file.
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EvalItem, EvalWord, load_eval_items

import voxfast
from voxfast.bench.measure import resident_mb
from voxfast.bench.scoring import align

SAMPLE_RATE = 16000


@dataclass
class Minute:
    """One minute of the stream.

    Attributes:
        end: seconds of audio at its end.
        ms_per_step: median over the minute's steps.
        undisturbed_ms: their tenth percentile, which other programs on the machine move least.
        cpu_ms_per_step: processor time of all threads, mean over the minute.
        resident_mb: of the process, at its end.
        cache_mb: freed memory that MLX keeps for reuse.
    """

    end: float
    ms_per_step: float
    undisturbed_ms: float
    cpu_ms_per_step: float
    resident_mb: float
    cache_mb: float


def speech(seconds: float, seed: int = 0) -> Iterator[tuple[np.ndarray, EvalItem | None]]:
    """Clips and the pauses between them: (samples, the clip)."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    items = load_eval_items()
    assert all(len(item.audio) for item in items)  # read now: memory is to be that of voxfast
    done = 0.0
    while done < seconds:
        item = rng.choice(items[:40] if rng.random() < 0.95 else items[40:])
        pause = np.zeros(int(rng.uniform(0.3, 4.0) * SAMPLE_RATE), np.float32)
        if rng.random() < 0.5:
            pause += noise.normal(0, 1e-3, len(pause)).astype(np.float32)
        done += (len(item.audio) + len(pause)) / SAMPLE_RATE
        yield item.audio, item
        yield pause, None


def chunks(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in chunks of one size."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // size * size
        yield from rest[:whole].reshape(-1, size)
        rest = rest[whole:]


def chunk_size(model: voxfast.Model) -> int:
    """Samples of one step."""
    return 1280 if model.delays_ms else 8000


@dataclass
class TenMinutes:
    """What was said and what was recognised, both with the stream's times."""

    said: list[EvalWord] = field(default_factory=list)
    heard: list[voxfast.Word] = field(default_factory=list)

    def score(self) -> dict[str, float]:
        """Word errors, and how much later the words that are right end than they were said.

        Of that, in seconds, the median and the 95th percentile of its size.
        """
        pairs, errors = align(self.said, self.heard)
        late = [heard.end - said.end for said, heard in pairs] or [float("nan")]
        return {
            "words": len(self.said),
            "error_rate": errors / len(self.said),
            "late": float(np.median(late)),
            "late_size_95": float(np.percentile(np.abs(late), 95)),
        }


class Texts:
    """Scores by ten minutes of the stream; no more words are kept than that takes."""

    def __init__(self) -> None:
        self.scores: list[dict[str, float]] = []
        self._before, self._now = TenMinutes(), TenMinutes()
        self._number = 0
        self._begin = 0.0

    def said(self, clip: EvalItem, start: float) -> None:
        """A clip begins at ``start``; it counts whole to the ten minutes that it begins in."""
        if start // 600 > self._number:
            self._next()
            self._begin = start
        self._now.said += [
            replace(word, start=start + word.start, end=start + word.end) for word in clip.words
        ]

    def heard(self, words: list[voxfast.Word]) -> None:
        for word in words:
            (self._now if word.end > self._begin else self._before).heard.append(word)

    def finish(self, end: float) -> None:
        """Nothing was heard after ``end``; ten minutes that are not complete are left out."""
        for ten in (self._before, self._now):
            ten.said = [word for word in ten.said if word.end < end]
        self._next()
        self._next()
        self.scores = [score for score in self.scores if score["words"] > 100]

    def _next(self) -> None:
        if self._before.said:
            self.scores.append(self._before.score())
        self._before, self._now = self._now, TenMinutes()
        self._number += 1


class Steps:
    """Feeds a session, and keeps the times that its steps took."""

    def __init__(self, session: voxfast.Session) -> None:
        self.session = session
        self.seconds: list[float] = []
        self._cpu = time.process_time()

    def feed(self, chunk: np.ndarray) -> list[voxfast.Word]:
        start = time.perf_counter()
        words = self.session.feed(chunk)
        self.seconds.append(time.perf_counter() - start)
        return words

    def minute(self) -> Minute:
        """The times since the last call."""
        gc.collect()
        cpu = time.process_time()
        minute = Minute(
            self.session.heard,
            1000 * float(np.median(self.seconds)),
            1000 * float(np.percentile(self.seconds, 10)),
            1000 * (cpu - self._cpu) / len(self.seconds),
            resident_mb(),
            mx.get_cache_memory() / 2**20,
        )
        self.seconds.clear()
        self._cpu = cpu
        return minute


class Listener:
    """A session, the stream that it hears, and its texts.

    Attributes:
        chunks: of ``size`` samples; the texts are told what is said as they are taken.
    """

    def __init__(self, session: voxfast.Session, seconds: float, size: int, seed: int) -> None:
        self.session, self.texts = session, Texts()
        self.chunks = chunks(self._pieces(seconds, seed), size)

    def _pieces(self, seconds: float, seed: int) -> Iterator[np.ndarray]:
        before = 0
        for samples, clip in speech(seconds, seed):
            if clip is not None:
                self.texts.said(clip, before / SAMPLE_RATE)
            before += len(samples)
            yield samples

    def finish(self, fed: int) -> None:
        """The stream ends after so many samples."""
        self.texts.heard(self.session.flush())
        self.texts.finish(fed / SAMPLE_RATE)
        assert self.session.heard == self.session.processed == fed / SAMPLE_RATE  # to the sample


def soak(first: Listener, others: list[Listener]) -> list[Minute]:
    """Feed the whole stream of the first, and as much to the others; returns its minutes."""
    minutes, steps, fed = [], Steps(first.session), 0
    for chunk in first.chunks:
        for other in others:
            other.session.insert(next(other.chunks))
        first.texts.heard(steps.feed(chunk))
        for other in others:
            other.texts.heard(other.session.process())
        fed += len(chunk)
        if first.session.heard // 60 > len(minutes):
            minutes.append(steps.minute())
            if len(minutes) % 10 == 0:
                print(asdict(minutes[-1]), flush=True)
    for listener in [first, *others]:
        listener.finish(fed)
    return minutes


def race(model: voxfast.Model, old: voxfast.Session, size: int) -> dict[str, float]:
    """Ten more minutes of an old session against minutes 10 to 20 of a young one.

    Both take the same chunks in turn, so that whatever else happens on the machine meets both.
    """
    with model.session() as young:
        for chunk in chunks((samples for samples, _ in speech(600, seed=1)), size):
            young.feed(chunk)
        pair = Steps(old), Steps(young)
        for chunk in chunks((samples for samples, _ in speech(600, seed=2)), size):
            for steps in pair:
                steps.feed(chunk)
    old_ms, young_ms = (1000 * float(np.median(steps.seconds)) for steps in pair)
    return {"old_ms": old_ms, "young_ms": young_ms, "old_over_young": old_ms / young_ms}


def by_ten_minutes(values: list[float]) -> list[float]:
    """The median of every ten minutes that are complete."""
    return [float(np.median(values[i : i + 10])) for i in range(0, len(values) - 9, 10)]


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """A column of curves for each run, as :func:`main` summarises it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(
        4, len(runs), sharex="col", squeeze=False, figsize=(1 + 5 * len(runs), 9)
    )
    for run, (times, memory, errors, late) in zip(runs, grid.T, strict=True):
        minutes = run["minutes"]
        x = [minute["end"] / 3600 for minute in minutes]
        tens = [(10 * i + 5) / 60 for i in range(len(run["word_error_rate_by_ten_minutes"]))]
        times.set_title(f"{run['model']}, steps of {run['ms_of_audio_per_step']:g} ms")
        # Other programs on the machine move it least. (The times that steps took are in the JSON.)
        times.plot(x, [minute["cpu_ms_per_step"] for minute in minutes], lw=0.8)
        times.set(ylim=(0, None), ylabel="processor time (ms per step)")
        for key, label in (("resident_mb", "resident"), ("cache_mb", "MLX's cache of freed")):
            memory.plot(x, [minute[key] for minute in minutes], label=label)
        memory.set(ylim=(0, None), ylabel="memory (MB)")
        errors.plot(tens, [100 * rate for rate in run["word_error_rate_by_ten_minutes"]])
        errors.set(ylim=(0, None), ylabel="word errors (%)")
        late.plot(tens, [1000 * seconds for seconds in run["words_end_late_by_ten_minutes"]])
        late.axhline(0, color="grey", lw=0.8)
        late.set(ylim=(-80, 80), ylabel="words end late by (ms)", xlabel="hours of audio")
        memory.legend(loc="center right", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--draw", type=Path, nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.draw:
        if not args.plot:
            parser.error("--draw needs --plot FILE")
        plot([json.loads(file.read_text()) for file in args.draw], args.plot)
        return
    if args.hours < 0.2:
        parser.error(f"--hours must be 0.2 or more, for ten minutes at least; got {args.hours}")
    with voxfast.load(args.model) as model, model.session() as session:
        size, length = chunk_size(model), args.hours * 3600
        first = Listener(session, length, size, seed=0)
        others = [  # a clip more: the first stream is over when its last clip is
            Listener(model.session(), length + 200, size, seed) for seed in range(1, args.sessions)
        ]
        start = time.perf_counter()
        minutes = soak(first, others)
        seconds = time.perf_counter() - start
        for other in others:
            other.session.close()
        raced = race(model, session, size)
    tens = by_ten_minutes([minute.ms_per_step for minute in minutes])
    undisturbed = by_ten_minutes([minute.undisturbed_ms for minute in minutes])
    second = min(1, len(tens) - 1)
    resident = [minute.resident_mb for minute in minutes[2:]]
    summary = {
        "model": Path(args.model).name,
        "ms_of_audio_per_step": size / 16,
        "hours": args.hours,
        "sessions": args.sessions,
        "real_time_factor": seconds / (args.hours * 3600),
        "ms_per_step_by_ten_minutes": tens,
        "undisturbed_ms_by_ten_minutes": undisturbed,
        "cpu_ms_by_ten_minutes": by_ten_minutes([m.cpu_ms_per_step for m in minutes]),
        "last_over_second_ten_minutes": tens[-1] / tens[second],
        "undisturbed_last_over_second_ten_minutes": undisturbed[-1] / undisturbed[second],
        "race_at_the_end": raced,
        "resident_growth_mb": resident[-1] - resident[0],
        "resident_spread_mb": max(resident) - min(resident),
        "word_error_rate_by_ten_minutes": [ten["error_rate"] for ten in first.texts.scores],
        "words_end_late_by_ten_minutes": [ten["late"] for ten in first.texts.scores],
        "lateness_size_95_by_ten_minutes": [ten["late_size_95"] for ten in first.texts.scores],
        "word_error_rates_of_others": [
            float(np.mean([ten["error_rate"] for ten in other.texts.scores])) for other in others
        ],
    }
    print(json.dumps(summary, indent=2))
    run = summary | {"minutes": [asdict(minute) for minute in minutes]}
    if args.json:
        args.json.write_text(json.dumps(run))
    if args.plot:
        plot([run], args.plot)


if __name__ == "__main__":
    main()
