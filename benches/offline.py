"""Recordings with Qwen3-ASR: utterances side by side, against one after the other.

    python benches/offline.py [--clip FILE] [--model tests/data/qwen3-asr-numbers]
    python benches/offline.py --full 8bit [--size 0.6b|1.7b] [--clip FILE]

The first form transcribes the clip with ``voxfast.transcribe``, so many utterances at once, and one
after the other, in turns; words, times and probabilities must be the same.

The second form is about the published sizes. Random weights write random tokens, so the tokens that
qwen3-asr-numbers writes to the clip, and the frames that it attends to, take the place of those
that the random model writes. All else is computed: log-mel, tower, prompts, tokens and logits.

Prints JSON: seconds and real-time factors, the passes of the decoder, and their mean rows.
"""

import argparse
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
from numpy.typing import NDArray

import voxfast
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.measure import resident_mb
from voxfast.bench.random_models import QWEN3_ASR_0_6B, QWEN3_ASR_1_7B, random_qwen3_asr
from voxfast.models.qwen3_asr import heads, passes, stream
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.timed import Token

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EVAL_FOLDER, QWEN_FOLDER

CLIP = EVAL_FOLDER / "eval_long_180s.flac"
BITS = {"4bit": 4, "8bit": 8, "bfloat16": None}
SIZES = {"0.6b": QWEN3_ASR_0_6B, "1.7b": QWEN3_ASR_1_7B}

Audio = NDArray[Any]


class Replay:
    """The predictions of one run, by inference, for another run to repeat."""

    def __init__(self) -> None:
        self._written: list[list[Token]] = []
        self._waiting: deque[list[Token]] = deque()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note what decoders predict."""
        texts: dict[int, list[Token]] = {}
        absorb = Decoder._absorb

        def noting(decoder: Decoder, last: Token, logits: mx.array, row: int) -> None:
            if _is_prompt(decoder):
                self._written.append([])
                texts[id(decoder)] = self._written[-1]
            texts[id(decoder)].append(last)
            absorb(decoder, last, logits, row)

        with patch.object(Decoder, "_absorb", noting):
            yield

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Let decoders predict that again; inferences begin in the same order."""
        self._waiting = deque(self._written)
        texts: dict[int, Iterator[Token]] = {}
        absorb = Decoder._absorb

        def repeat(decoder: Decoder, _: Token, logits: mx.array, row: int) -> None:
            if _is_prompt(decoder):
                texts[id(decoder)] = iter(self._waiting.popleft())
            absorb(decoder, next(texts[id(decoder)]), logits, row)

        with patch.object(Decoder, "_absorb", repeat):
            yield


def _is_prompt(decoder: Decoder) -> bool:
    return any(isinstance(piece, mx.array) for piece in decoder._inputs)


class Rows:
    """Counts the passes of the decoder and the streams that take part in them."""

    def __init__(self) -> None:
        self.passes = self.rows = 0
        self._decode = passes.decode

    def __call__(self, decoders: Sequence[Decoder]) -> None:
        self.passes += 1
        self.rows += len(decoders)
        self._decode(decoders)


def timed(
    model: voxfast.Model, audio: Audio, at_once: int, options: dict[str, Any]
) -> tuple[float, tuple[voxfast.Word, ...], Rows]:
    rows = Rows()
    with patch.object(stream, "SIDE_BY_SIDE", at_once), patch.object(passes, "decode", rows):
        begin = time.perf_counter()
        words = voxfast.transcribe(audio, model=model, **options).words
        return time.perf_counter() - begin, words, rows


def race(model: voxfast.Model, audio: Audio, args: argparse.Namespace) -> dict[str, object]:
    """So many at once, and one by one, in turns."""
    options: dict[str, Any] = {"language": "en"}
    replay = Replay()
    if args.full:
        with replay.recording():
            timed(model, audio, 1, options)
        options["tuning"] = randomised(model, args)
    seconds: dict[int, list[float]] = {args.at_once: [], 1: []}
    found: dict[int, tuple[Any, Rows]] = {}
    for _ in range(args.rounds):
        for at_once in seconds:
            with replay.repeating() if args.full else nullcontext():
                taken, words, rows = timed(model, audio, at_once, options)
            seconds[at_once].append(taken)
            found[at_once] = words, rows
    length = len(audio) / SAMPLE_RATE
    factors = {n: statistics.median(taken) / length for n, taken in seconds.items()}
    many = found[args.at_once][1]
    return {
        "model": f"qwen3-asr-{args.size}-{args.full}, random weights" if args.full else args.model,
        "clip": args.clip.name,
        "seconds": round(length, 1),
        "words": len(found[1][0]),
        "words_equal": found[1][0] == found[args.at_once][0],
        "at_once": args.at_once,
        "real_time_factor": round(factors[args.at_once], 4),
        "one_by_one": round(factors[1], 4),
        "ratio": round(factors[args.at_once] / factors[1], 3),
        "rounds_s": {n: [round(one, 2) for one in taken] for n, taken in seconds.items()},
        "passes": many.passes,
        "streams_per_pass": round(many.rows / many.passes, 2),
        "passes_one_by_one": found[1][1].passes,
        "resident_mb": round(resident_mb()),
    }


def randomised(model: voxfast.Model, args: argparse.Namespace) -> voxfast.Qwen3Tuning:
    """Put random weights of a published size into a loaded model; the heads measured for it."""
    loaded: Any = model._loaded

    def put() -> None:
        loaded._config = SIZES[args.size]
        loaded._model = random_qwen3_asr(loaded._config, BITS[args.full])[1]

    model._owner.run(put)
    return voxfast.Qwen3Tuning(heads_file=heads.MEASURED / f"qwen3-asr-{args.size}.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(QWEN_FOLDER))
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--at-once", type=int, default=stream.SIDE_BY_SIDE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", choices=tuple(BITS))
    parser.add_argument("--size", choices=tuple(SIZES), default="0.6b")
    args = parser.parse_args()
    audio = load_audio(args.clip)
    with voxfast.load(QWEN_FOLDER if args.full else args.model, dtype=mx.float32) as model:
        print(json.dumps(race(model, audio, args)))


if __name__ == "__main__":
    main()
