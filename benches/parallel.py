"""Voxtral's parallel decoding: passes per position, exactness, and what it saves at full size.

    python benches/parallel.py [--clip FILE ...] [--block-ms 480 ...] [--delay-ms 480 ...]
                               [--dtype float32] [--rows due] [--cut-pauses]
    python benches/parallel.py --full 4bit|8bit|bfloat16 [--clip FILE] [--block-ms 480]

The first form runs voxtral-numbers over each clip in blocks of so much audio, one row at a time
and with as many rows per pass as the stream chooses (``--rows due``: all that are due), and
compares every token and probability, bit for bit. ``--cut-pauses`` leaves pauses out of the
audio, as in speech without any.

The second form is about Voxtral 4B. Random weights write random tokens, of which no guess holds,
so it measures what passes of 1 to 12 rows of the random model cost, lets voxtral-numbers transcribe
the clip with passes chosen by these costs, and replays their rows and what they kept on the random
model: decoder and logits, beside one row at a time, in turns.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.random_models import random_voxtral
from voxfast.models.traits import read_traits
from voxfast.models.voxtral.network import DecoderRows, DecoderState, Voxtral
from voxfast.models.voxtral.passes import MAX_ROWS, Acceptance, PassCosts
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.ops import greedy
from voxfast.timed import Token
from voxfast.vad import find_speech

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EVAL_FOLDER, VOXTRAL_FOLDER

CLIP = EVAL_FOLDER / "eval_long_180s.flac"
BITS = {"4bit": 4, "8bit": 8, "bfloat16": None}
MEASURED = (1, 2, 3, 4, 6, 8, 12)  # rows
HISTORY = 750  # positions in the rings of the full-size decoder: a minute

Audio = NDArray[np.float32]
Pass = tuple[int, int]  # rows, and how many of them were kept


class AllDue(Acceptance):
    """Takes every position that is due."""

    def rows(self, due: int, costs: PassCosts, beside: int = 0) -> int:
        return due


class KnownCosts(PassCosts):
    """Costs of another model, which no measurement changes."""

    def __init__(self, seconds: dict[int, float]) -> None:
        super().__init__()
        self._seconds = dict(seconds)

    def note(self, rows: int, seconds: float) -> None:
        pass


class Recorder(Acceptance):
    """Keeps the rows of all passes, and how many of them were kept."""

    def __init__(self, inner: Acceptance) -> None:
        super().__init__()
        self._inner = inner
        self.passes: list[Pass] = []

    def note(self, rows: int, accepted: int) -> None:
        self.passes.append((rows, accepted))
        self._inner.note(rows, accepted)

    def rows(self, due: int, costs: PassCosts, beside: int = 0) -> int:
        return self._inner.rows(due, costs, beside)


class Run:
    """voxtral-numbers over a clip, in blocks.

    Attributes:
        tokens: with their probabilities.
        passes: rows and kept rows; the prompt's is left out.
        seconds: wall time.
    """

    def __init__(
        self,
        network: Voxtral,
        audio: Audio,
        block_ms: int,
        delay_ms: int,
        costs: PassCosts | None,
        acceptance: Acceptance,
    ) -> None:
        self.tokens: list[Token] = []
        stream = VoxtralStream(
            network,
            VoxtralTokenizer(VOXTRAL_FOLDER / "tekken.json", network.args.vocab_size),
            read_traits(VOXTRAL_FOLDER),
            delay_ms,
            costs=costs,
            on_token=self.tokens.append,
        )
        recorder = stream._tokens._acceptance = Recorder(acceptance)
        size = block_ms * SAMPLE_RATE // 1000
        begin = time.perf_counter()
        for at in range(0, len(audio), size):
            stream.push(audio[at : at + size])
            while stream.due:
                stream.step()
        stream.end_stream()
        while stream.due:
            stream.step()
        self.seconds = time.perf_counter() - begin
        self.passes = recorder.passes[1:]


def small(options: argparse.Namespace) -> Iterable[dict[str, object]]:
    network = load_voxtral(VOXTRAL_FOLDER, getattr(mx, options.dtype))
    for clip in options.clip:
        audio = load_audio(clip)
        if options.cut_pauses:
            audio = without_pauses(audio)
        for delay_ms in options.delay_ms:
            for block_ms in options.block_ms:
                chosen = AllDue() if options.rows == "due" else Acceptance()
                once = Run(network, audio, block_ms, delay_ms, PassCosts(), chosen)
                single = Run(network, audio, block_ms, delay_ms, None, Acceptance())
                rows = [rows for rows, _ in once.passes]
                positions = len(once.tokens)
                yield {
                    "clip": clip.name,
                    "pauses_cut": options.cut_pauses,
                    "dtype": options.dtype,
                    "delay_ms": delay_ms,
                    "block_ms": block_ms,
                    "tokens_equal": once.tokens == single.tokens,
                    "positions": positions,
                    "passes_per_position": round(len(rows) / positions, 3),
                    "rows_per_position": round(sum(rows) / positions, 3),
                    "time_to_one_by_one": round(once.seconds / single.seconds, 3),
                }


def without_pauses(audio: Audio) -> Audio:
    spans = find_speech(audio)
    return np.concatenate(
        [audio[int(span.start * SAMPLE_RATE) : int(span.end * SAMPLE_RATE)] for span in spans]
    )


def full(options: argparse.Namespace) -> Iterable[dict[str, object]]:
    """One row at a time and in passes, in turns, on random weights at full size."""
    model = random_voxtral(BITS[options.full])
    decoder = FullDecoder(model)
    seconds = {rows: decoder.cost(rows) for rows in MEASURED}
    network = load_voxtral(VOXTRAL_FOLDER, mx.float32)
    audio = load_audio(options.clip[0])
    if options.cut_pauses:
        audio = without_pauses(audio)
    for block_ms in options.block_ms:
        found = Run(network, audio, block_ms, 480, KnownCosts(seconds), Acceptance())
        passes = found.passes[: options.passes]
        positions = sum(kept for _, kept in passes)
        single, together = [], []
        for first in range(0, len(passes), 20):
            some = passes[first : first + 20]
            single.append(decoder.replay([(1, 1)] * sum(kept for _, kept in some)))
            together.append(decoder.replay(some))
        yield {
            "model": f"voxtral-4b-{options.full}, random weights; passes of voxtral-numbers",
            "clip": options.clip[0].name,
            "pauses_cut": options.cut_pauses,
            "block_ms": block_ms,
            "rows_ms": {rows: round(1000 * cost, 1) for rows, cost in seconds.items()},
            "rows_ratio": {rows: round(cost / seconds[1], 2) for rows, cost in seconds.items()},
            "passes_per_position": round(len(passes) / positions, 3),
            "rows_per_position": round(sum(rows for rows, _ in passes) / positions, 3),
            "ms_per_position_one_by_one": round(1000 * sum(single) / positions, 1),
            "ms_per_position": round(1000 * sum(together) / positions, 1),
            "ratio": round(sum(together) / sum(single), 3),
        }


class FullDecoder:
    """The decoder and the logits of a model, with a minute of history."""

    def __init__(self, model: Voxtral) -> None:
        self._model = model
        self._state: DecoderState = model.decoder_state(6, MAX_ROWS)
        for _ in range(0, HISTORY, MAX_ROWS):
            self._run(MAX_ROWS)

    def _run(self, rows: int) -> None:
        run_pass(self._model, [self._state], rows)

    def cost(self, rows: int) -> float:
        """Seconds of a pass, the median."""
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            self._run(rows)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def replay(self, passes: list[Pass]) -> float:
        """Seconds of these passes, with rows taken back."""
        begin = time.perf_counter()
        for rows, kept in passes:
            self._run(rows)
            self._state.trim(rows - kept)
        return time.perf_counter() - begin


def run_pass(model: Voxtral, states: list[DecoderState], rows: int = 1) -> None:
    """A pass of the decoder with so many rows of each stream, and its logits."""
    audio = mx.zeros((rows, model.args.decoder.dim), model.dtype)
    tokens = mx.arange(rows, dtype=mx.int32)
    logits = model.decode([DecoderRows(audio, tokens, state, rows) for state in states])
    mx.eval(*greedy(logits), [state.arrays() for state in states])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, nargs="+", default=[CLIP])
    parser.add_argument("--block-ms", type=int, nargs="+", default=[480])
    parser.add_argument("--delay-ms", type=int, nargs="+", default=[480])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rows", choices=("chosen", "due"), default="chosen")
    parser.add_argument("--cut-pauses", action="store_true")
    parser.add_argument("--full", choices=tuple(BITS))
    parser.add_argument("--passes", type=int, default=200, help="of a replay")
    options = parser.parse_args()
    for found in full(options) if options.full else small(options):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
