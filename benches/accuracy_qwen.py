"""Accuracy of Qwen3-ASR streamed with AlignAtt, against the delay that buys it.

    python benches/accuracy_qwen.py [--json FILE] [--plot FILE]

For blocks of 0.5 and 1 s and several borders (``delay_ms``): word error rates on the 40 short
clips and on the one of 180 s, errors of the words' starts, the mean time from a word's end in
the recording to its commitment (without words that only the end of a clip brought out), the
processor time per second of audio, and what the third minute of the long clip takes of it
against the first. Last, everything inserted at
once, and mlx_qwen3_asr itself. Float32 arithmetic.
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
from evaluation import EVAL_FOLDER, QWEN_FOLDER, load_qwen_tokens

import voxfast
from voxfast.bench.dataset import Stream, load_dataset, streams
from voxfast.bench.measure import Record, measure
from voxfast.bench.scoring import score, word_error_rate
from voxfast.bench.summary import latencies
from voxfast.models.qwen3_asr_tokenizer import Qwen3ASRTokenizer

DELAYS_MS = (0, 160, 240, 320, 480, 640, 960)
BLOCKS_MS = (500, 1000)


def run(model: voxfast.Model, clips: list[Stream], delay_ms: int, block_ms: int) -> dict[str, Any]:
    """One row of the table."""
    # Processor time: what else runs on the machine does not count.
    options = {"block_ms": block_ms, "delay_ms": delay_ms, "language": "en"}
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
        "wer_short": scores[0].word_error_rate,
        "wer_long": scores[1].word_error_rate,
        "start_error": scores[0].start.mean_absolute,
        "end_error": scores[0].end.mean_absolute,
        "latency": float(np.mean(late)),
        "latency_95": float(np.percentile(late, 95)),
        "processor_time": sum(r.compute_seconds for r in records) / sum(r.seconds for r in records),
        "third_minute": minute(long, 2) / minute(long, 0),
    }


def minute(record: Record, index: int) -> float:
    """Milliseconds of processor time in a minute of a stream."""
    inside = [s.mean_ms for s in record.steps if 60 * index < s.second <= 60 * (index + 1)]
    return float(np.sum(inside))


def offline(model: voxfast.Model, clips: list[Stream]) -> tuple[float, float]:
    """Error rates on the short clips: everything at once, and of mlx_qwen3_asr."""
    found = []
    for clip in clips[:40]:
        with model.session(language="en") as session:
            session.insert(clip.load()[0])
            found.append("".join(word.text for word in session.finish()).strip())
    tokenizer = Qwen3ASRTokenizer(QWEN_FOLDER, 151936)
    truth = load_qwen_tokens()["English"]
    library = [
        b"".join(tokenizer.piece(token) or b"" for token in truth[clip.name]).decode()
        for clip in clips[:40]
    ]
    texts = [clip.text for clip in clips[:40]]
    return word_error_rate(texts, found), word_error_rate(texts, library)


def line(row: dict[str, Any]) -> str:
    """A row of the table as text."""
    return (
        f"{row['block_ms']:5d}  {row['delay_ms']:6d}"
        f"  {row['wer_short']:9.2%}  {row['wer_long']:9.2%}"
        f"  {1000 * row['start_error']:8.0f} ms  {1000 * row['end_error']:6.0f} ms"
        f"  {row['latency']:8.2f} s / {row['latency_95']:.2f} s"
        f"  {row['processor_time']:13.3f}  {row['third_minute']:16.2f}"
    )


def plot(rows: list[dict[str, Any]], reference: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    for block_ms in BLOCKS_MS:
        part = [row for row in rows if row["block_ms"] == block_ms]
        late = [row["latency"] for row in part]
        axes.plot(late, [100 * row["wer_short"] for row in part], "o-",
                  label=f"40 short clips, blocks of {block_ms} ms")  # fmt: skip
        axes.plot(late, [100 * row["wer_long"] for row in part], "s--", alpha=0.6,
                  label=f"180 s clip, blocks of {block_ms} ms")  # fmt: skip
        for row in part:
            offset = (4, 5) if block_ms == BLOCKS_MS[0] else (4, -11)
            axes.annotate(f"{row['delay_ms']}", (row["latency"], 100 * row["wer_short"]),
                          textcoords="offset points", xytext=offset, fontsize=8)  # fmt: skip
    axes.axhline(100 * reference, color="k", linewidth=0.8, label="offline, 40 short clips")
    axes.set(
        xlabel="mean time from a word's end to its commitment (s); numbers: border in ms",
        ylabel="word error rate (%)",
        ylim=(0, None),
        title="qwen3-asr-numbers, streamed: accuracy against delay",
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--delay-ms", type=int, nargs="*", default=DELAYS_MS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    clips = streams(load_dataset(EVAL_FOLDER / "eval.json"), "utterance")
    rows = []
    print("block  border  WER short  WER 180 s  start error  end error"
          "  latency mean / 95 %  processor s/s  3rd / 1st minute")  # fmt: skip
    with voxfast.load(QWEN_FOLDER, dtype=mx.float32) as model:
        for block_ms in BLOCKS_MS:
            for delay_ms in args.delay_ms:
                row = run(model, clips, delay_ms, block_ms)
                rows.append(row)
                print(line(row), flush=True)
        at_once, library = offline(model, clips)
    print(f"offline: {at_once:.2%}; mlx_qwen3_asr: {library:.2%}")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "offline": at_once}, indent=2))
    if args.plot:
        plot(rows, library, args.plot)


if __name__ == "__main__":
    main()
