"""Error rate, word times and latency on the evaluation clips, for every delay.

    python benches/accuracy.py [--dtype float32] [--json FILE] [--plot FILE]

Clips are streamed in chunks of 80 ms. Latency is computation-unaware: how much audio had been
fed when a word was committed, less the time at which the word ends in the recording.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EvalItem, load_eval_items
from scoring import score

import voxfast

CHUNK = 1280


@dataclass
class Run:
    """What one pass over some clips gave."""

    words: list[list[voxfast.Word]] = field(default_factory=list)
    committed: list[list[float]] = field(default_factory=list)
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0


def run(model: voxfast.Model, items: list[EvalItem], delay_ms: int) -> Run:
    result = Run()
    for item in items:
        words: list[voxfast.Word] = []
        committed: list[float] = []
        start = time.perf_counter()
        with model.session(delay_ms=delay_ms) as session:
            for i in range(0, len(item.audio), CHUNK):
                words += session.feed(item.audio[i : i + CHUNK])
                committed += [session.heard] * (len(words) - len(committed))
            words += session.finish()
            committed += [session.heard] * (len(words) - len(committed))
        result.compute_seconds += time.perf_counter() - start
        result.audio_seconds += item.duration
        result.words.append(words)
        result.committed.append(committed)
    return result


def latencies(items: list[EvalItem], result: Run) -> np.ndarray:
    """Seconds from the true end of every word of a clip without errors to its commitment."""
    found = []
    for item, words, committed in zip(items, result.words, result.committed, strict=True):
        if [w.text.strip() for w in words] == [w.text for w in item.words]:
            found += [c - w.end for c, w in zip(committed, item.words, strict=True)]
    return np.array(found)


def measure(model: voxfast.Model, delay_ms: int, items: list[EvalItem]) -> dict[str, float]:
    short, long = items[:40], items[40:]
    parts = [run(model, part, delay_ms) for part in (short, long)]
    scores = [
        score([item.words for item in part], r.words)
        for part, r in zip((short, long), parts, strict=True)
    ]
    late = latencies(short, parts[0])
    return {
        "delay_ms": delay_ms,
        "wer_short": scores[0].word_error_rate,
        "wer_long": scores[1].word_error_rate,
        "end_error": scores[0].end.mean_absolute,
        "end_error_long": scores[1].end.mean_absolute,
        "start_error": scores[0].start.mean_absolute,
        "latency_mean": float(late.mean()),
        "latency_95": float(np.percentile(late, 95)),
        "rtf": sum(p.compute_seconds for p in parts) / sum(p.audio_seconds for p in parts),
    }


def plot(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, left = plt.subplots(figsize=(7, 4))
    delays = [row["delay_ms"] for row in rows]
    left.plot(delays, [100 * row["wer_short"] for row in rows], "o-", label="40 short clips")
    left.plot(delays, [100 * row["wer_long"] for row in rows], "s-", label="180 s clip")
    left.set(xlabel="delay asked for (ms)", ylabel="word error rate (%)", ylim=(0, None))
    left.legend(loc="upper left")
    right = left.twinx()
    right.plot(delays, [row["latency_mean"] for row in rows], "k--", label="word latency")
    right.set(ylabel="word's end to its commitment (s)", ylim=(0, None))
    right.legend(loc="lower right")
    left.set_title("voxtral-numbers: accuracy and latency by delay")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--delay-ms", type=int, nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    items = load_eval_items()
    rows = []
    print("delay_ms  WER short  WER 180 s  end error  start error  latency mean / 95 %    RTF")
    with voxfast.load(args.model, dtype=getattr(mx, args.dtype)) as model:
        for delay_ms in args.delay_ms or model.delays_ms:
            row = measure(model, delay_ms, items)
            rows.append(row)
            print(
                f"{delay_ms:8d}  {row['wer_short']:9.2%}  {row['wer_long']:9.2%}"
                f"  {1000 * row['end_error']:6.0f} ms  {1000 * row['start_error']:8.0f} ms"
                f"  {row['latency_mean']:8.2f} s / {row['latency_95']:.2f} s  {row['rtf']:6.3f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
