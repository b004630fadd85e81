"""Accuracy of a streamed model, against the delay that buys it.

    python benches/accuracy.py [--model MODEL] [--dtype float32] [--kv-bits 8] [--json FILE]
        [--plot FILE]

For every delay of the model (Qwen3-ASR: several borders, in blocks of 0.5 and 1 s): word error
rates on the 40 short clips and on the one of 180 s, errors of the words' times, the mean time
from a word's end in the recording to its commitment (without words that only the end of a clip
brought out), the processor time per second of audio, and what the third minute of the long
clip takes of it against the first. Last, for Qwen3-ASR, everything inserted at once, and
mlx_qwen3_asr itself.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import mlx_qwen3_asr
from evaluation import EVAL_FOLDER

import voxfast
from voxfast.audio import SAMPLE_RATE
from voxfast.bench.dataset import Stream, load_dataset, streams
from voxfast.bench.measure import Record, measure
from voxfast.bench.scoring import score, word_error_rate
from voxfast.bench.summary import latencies
from voxfast.hub import resolve

VOXTRAL_BLOCKS_MS = (80,)
QWEN_BLOCKS_MS = (500, 1000)
QWEN_DELAYS_MS = (0, 160, 240, 320, 480, 640, 960)  # any is possible


def run(model: voxfast.Model, clips: list[Stream], delay_ms: int, block_ms: int) -> dict[str, Any]:
    """One row of the table."""
    # Processor time: what else runs on the machine does not count.
    options = {"block_ms": block_ms, "delay_ms": delay_ms}
    if not model.delays_ms:
        options["language"] = "en"
    records = [
        measure(model, clip, chunk_ms=block_ms, now=time.process_time, **options) for clip in clips
    ]
    short, long = records[:40], records[40]
    late = latencies(short, aware=False)
    scores = [score([r.truth or () for r in part], [r.words for r in part]) for part in
              (short, [long])]  # fmt: skip
    return {
        "block_ms": block_ms,
        "delay_ms": delay_ms,
        "words_short": words(short),
        "words_long": words([long]),
        "wer_short": scores[0].word_error_rate,
        "wer_long": scores[1].word_error_rate,
        "start_error": scores[0].start.mean_absolute,
        "end_error": scores[0].end.mean_absolute,
        "latency": float(np.mean(late)),
        "latency_95": float(np.percentile(late, 95)),
        "processor_time": sum(r.compute_seconds for r in records) / sum(r.seconds for r in records),
        "third_minute": minute(long, 2) / minute(long, 0),
    }


def words(records: list[Record]) -> int:
    """How many words are said in streams: the n of their error rate."""
    return sum(len(record.reference.split()) for record in records)


def minute(record: Record, index: int) -> float:
    """Milliseconds of processor time in a minute of a stream."""
    inside = [s.mean_ms for s in record.steps if 60 * index < s.second <= 60 * (index + 1)]
    return float(np.sum(inside))


def offline(model: voxfast.Model, clips: list[Stream]) -> dict[str, tuple[float, float]]:
    """Error rates, short clips and long: everything inserted at once, and mlx_qwen3_asr."""
    library = mlx_qwen3_asr.Session(str(resolve(model.name)), dtype=model.dtype)
    at_once, theirs = [], []
    for clip in clips:
        samples = clip.load()[0]
        with model.session(language="en") as session:
            session.insert(samples)
            at_once.append("".join(word.text for word in session.finish()))
        theirs.append(library.transcribe((samples, SAMPLE_RATE), language="English").text)
    texts = [clip.text for clip in clips]
    return {
        name: (word_error_rate(texts[:40], found[:40]), word_error_rate(texts[40:], found[40:]))
        for name, found in (("everything at once", at_once), ("mlx_qwen3_asr", theirs))
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table as text."""
    return (
        f"{row['block_ms']:5d}  {row['delay_ms']:6d}"
        f"  {row['wer_short']:9.2%}  {row['wer_long']:9.2%}"
        f"  {1000 * row['start_error']:8.0f} ms  {1000 * row['end_error']:6.0f} ms"
        f"  {row['latency']:8.2f} s / {row['latency_95']:.2f} s"
        f"  {row['processor_time']:13.3f}  {row['third_minute']:16.2f}"
    )


def plot(rows: list[dict[str, Any]], title: str, offline: float | None, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    for place, block_ms in enumerate(dict.fromkeys(row["block_ms"] for row in rows)):
        part = [row for row in rows if row["block_ms"] == block_ms]
        late = [row["latency"] for row in part]
        axes.plot(late, [100 * row["wer_short"] for row in part], "o-",
                  label=f"40 short clips ({part[0]['words_short']} words), "
                        f"blocks of {block_ms} ms")  # fmt: skip
        axes.plot(late, [100 * row["wer_long"] for row in part], "s--", alpha=0.6,
                  label=f"clip of 180 s ({part[0]['words_long']} words), "
                        f"blocks of {block_ms} ms")  # fmt: skip
        for row in part:
            offset = (4, -11) if place else (4, 5)
            axes.annotate(f"{row['delay_ms']}", (row["latency"], 100 * row["wer_short"]),
                          textcoords="offset points", xytext=offset, fontsize=8)  # fmt: skip
    if offline is not None:
        axes.axhline(100 * offline, color="k", linewidth=0.8, label="offline, 40 short clips")
    axes.set(
        xlabel="mean time from a word's end to its commitment (s); numbers: delay_ms",
        ylabel="word error rate (%)",
        ylim=(0, 115 * max(max(row["wer_short"], row["wer_long"]) for row in rows)),
        title=f"{title}, streamed: accuracy against delay",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--kv-bits", type=int, choices=[8])
    parser.add_argument("--delay-ms", type=int, nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    clips = streams(load_dataset(EVAL_FOLDER / "eval.json"), "utterance")
    rows, at_once = [], None
    print("block   delay  WER short  WER 180 s  start error  end error"
          "  latency mean / 95 %  processor s/s  3rd / 1st minute")  # fmt: skip
    dtype = getattr(mx, args.dtype)
    with voxfast.load(args.model, dtype=dtype, kv_bits=args.kv_bits) as model:
        delays, blocks = model.delays_ms, VOXTRAL_BLOCKS_MS
        if not delays:
            delays, blocks = QWEN_DELAYS_MS, QWEN_BLOCKS_MS
        for block_ms in blocks:
            for delay_ms in args.delay_ms or delays:
                row = run(model, clips, delay_ms, block_ms)
                rows.append(row)
                print(line(row), flush=True)
        if not model.delays_ms:
            for name, (short, long) in offline(model, clips).items():
                print(f"{name}: {short:.2%}, 180 s: {long:.2%}")
                at_once = short if at_once is None else at_once
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    if args.plot:
        plot(rows, Path(args.model).name, at_once, args.plot)


if __name__ == "__main__":
    main()
