"""Random sequences of calls on sessions and processors; see tests/random_calls.py.

    python tools/random_calls.py [--runs 2000] [--first 0] [--model NAME, "tiny" or "tiny-qwen"]

A failing sequence is repeated with ``--first NUMBER --runs 1``.
"""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

import mlx.core as mx
import numpy as np

import voxfast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import load_eval_items
from fuzzing.tiny import write_tiny_qwen3_asr, write_tiny_voxtral
from random_calls import check_sequence


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--model", default="tiny", help="tiny, tiny-qwen: random weights, fast")
    args = parser.parse_args()
    audio = np.concatenate([item.audio for item in load_eval_items()[:40]])
    words = failures = 0
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tiny = {"tiny": write_tiny_voxtral, "tiny-qwen": write_tiny_qwen3_asr}.get(args.model)
        name = tiny(Path(folder) / "tiny") if tiny else args.model
        with voxfast.load(name, dtype=mx.float32) as model:
            for number in range(args.first, args.first + args.runs):
                try:
                    words += check_sequence(model, number, audio)
                except Exception:
                    failures += 1
                    print(f"sequence {number} failed\n{traceback.format_exc()}")
                if number % 500 == 499:
                    print(f"{number + 1} sequences, {words} words, {failures} failures", flush=True)
    seconds = time.perf_counter() - begin
    print(f"{args.runs} sequences, {words} words, {failures} failures, {seconds:.0f} s")
    return min(1, failures)


if __name__ == "__main__":
    sys.exit(main())
