"""Many sessions of one model, which share passes, against one.

    python benches/lockstep.py [--sessions 16] [--seconds 20] [--chunk-ms 80] [--threads]
    python benches/lockstep.py --full 4bit [--sessions 16] [--model qwen3-asr-0.6b]
    python benches/lockstep.py --backlog 60 [--sessions 16]
    python benches/lockstep.py --live 64 [--minutes 10]

The race: so many live sessions get their audio in chunks, in turn, all on one thread (or each
on its own, ``--threads``), as fast as it goes; beside it one session alone, in the same process and
in turns: the ratio of the fastest rounds, and of the medians. Every session's words must be those
of the same audio alone.

``--full`` races a pass of the decoder of Voxtral 4B, random weights, with a position of each
session against one of one session, each with a minute of history, in turns; or, of Qwen3-ASR 0.6B,
with a token of each, written behind 15 s of audio. It says what the least possible is: one read of
the weights, or the products of all rows at the processor's peak.

``--backlog`` lets one session catch up with so many seconds, on a thread of its own, while the
others are live; and counts the passes that ran while a live session waited for its words.

``--live`` feeds sessions at the speed of speech and prints the largest lag: of the first second,
in which all of them open at once, and of the time after it.
"""

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from models import weights_of
from numpy.typing import NDArray
from parallel import BITS, HISTORY, run_pass
from roofline import peak_rate, products_per_float, read_seconds

import voxfast
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.measure import resident_mb
from voxfast.bench.random_models import QWEN3_ASR_0_6B, random_qwen3_asr, random_voxtral
from voxfast.models.qwen3_asr import passes
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder, decode
from voxfast.models.voxtral import tokens
from voxfast.models.voxtral.passes import MAX_ROWS
from voxfast.online.owner import OwnerThread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import EVAL_FOLDER

Samples = NDArray[np.float32]
CLIP = EVAL_FOLDER / "eval_long_180s.flac"
HEADS = {12: range(5), 18: range(5)}  # of Qwen3-ASR: any, as many as there are by default


def pieces(count: int, seconds: float) -> list[Samples]:
    """Different parts of the clip, as often as they are needed."""
    audio, size = load_audio(CLIP), int(seconds * SAMPLE_RATE)
    starts = np.linspace(0, len(audio) - size, count).astype(int)
    return [audio[start : start + size] for start in starts]


def in_turn(model: voxfast.Model, audio: list[Samples], chunk: int) -> list[list[voxfast.Word]]:
    """All sessions on one thread: insert into each, then process each."""
    sessions = [model.session() for _ in audio]
    words: list[list[voxfast.Word]] = [[] for _ in audio]
    for at in range(0, len(audio[0]), chunk):
        for session, samples in zip(sessions, audio, strict=True):
            session.insert(samples[at : at + chunk])
        for session, found in zip(sessions, words, strict=True):
            found += session.process()
    for session in sessions:
        session.end()
    for session, found in zip(sessions, words, strict=True):
        found += session.finish()
    return words


def on_threads(model: voxfast.Model, audio: list[Samples], chunk: int) -> list[list[voxfast.Word]]:
    def transcribe(samples: Samples) -> list[voxfast.Word]:
        return in_turn(model, [samples], chunk)[0]

    with ThreadPoolExecutor(len(audio)) as pool:
        return list(pool.map(transcribe, audio))


def race(options: argparse.Namespace) -> dict[str, object]:
    chunk = options.chunk_ms * SAMPLE_RATE // 1000
    run = on_threads if options.threads else in_turn
    with voxfast.load(options.model, dtype=mx.float32) as model:
        audio = pieces(options.sessions, options.seconds)
        expected = [in_turn(model, [samples], chunk)[0] for samples in audio]
        words: list[list[list[voxfast.Word]]] = []
        alone, together = [], []
        for _ in range(options.rounds):
            alone.append(seconds_of(lambda: in_turn(model, audio[:1], chunk)))
            together.append(seconds_of(lambda: words.append(run(model, audio, chunk))))
    return {
        "model": options.model,
        "sessions": options.sessions,
        "seconds_each": options.seconds,
        "chunk_ms": options.chunk_ms,
        "threads": options.threads,
        "words_equal": all(found == expected for found in words),
        "alone_s": [round(seconds, 3) for seconds in alone],
        "together_s": [round(seconds, 3) for seconds in together],
        "ratio": round(min(together) / min(alone), 2),
        "ratio_of_medians": round(statistics.median(together) / statistics.median(alone), 2),
    }


def seconds_of(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def full(options: argparse.Namespace) -> dict[str, object]:
    is_qwen = "qwen" in options.model
    run_alone, run_together, decoder = (qwen if is_qwen else voxtral)(options)
    one, many = [], []
    for _ in range(options.passes):
        one.append(seconds_of(run_alone))
        many.append(seconds_of(run_together))
    alone, together = statistics.median(one), statistics.median(many)
    n_bytes, numbers = weights_of(decoder)
    rate = peak_rate() * products_per_float(BITS[options.full] or mx.bfloat16)
    least = max(read_seconds(n_bytes), options.sessions * numbers / rate)
    return {
        "model": f"{'qwen3-asr-0.6b' if is_qwen else 'voxtral-4b'}-{options.full}, random weights",
        "sessions": options.sessions,
        "alone_ms": round(1000 * alone, 1),
        "together_ms": round(1000 * together, 1),
        "ratio": round(together / alone, 2),
        "least_ms": round(1000 * least, 1),
        "ratio_to_least": round(together / least, 2),
    }


Racers = tuple[Callable[[], object], Callable[[], object], nn.Module]  # alone, together, decoder


def voxtral(options: argparse.Namespace) -> Racers:
    model = random_voxtral(BITS[options.full])
    states = [model.decoder_state(6, MAX_ROWS) for _ in range(options.sessions)]
    for _ in range(0, HISTORY, MAX_ROWS):
        run_pass(model, states[:1], MAX_ROWS)
    for state in states[1:]:
        state.caches = [cache.copy() for cache in states[0].caches]
    together = partial(run_pass, model, states)
    together()  # copies the history to rings of each
    return partial(run_pass, model, states[:1]), together, model.decoder


def qwen(options: argparse.Namespace) -> Racers:
    model = random_qwen3_asr(QWEN3_ASR_0_6B, BITS[options.full])[1]
    audio = Audio(mx.random.normal((195, 1024)).astype(model.dtype), 0)
    # The one alone is a decoder of its own: it prepares its next pass while it waits.
    decoders = [Decoder(model, range(9), HEADS) for _ in range(options.sessions + 1)]
    for decoder in decoders:
        passes.run_alone(decoder.read(audio, range(30)))

    def write(writing: list[Decoder]) -> None:
        for decoder in writing:
            assert decoder._last is not None
            decoder._inputs = [[decoder._last.id]]
        decode(writing)

    return partial(write, decoders[:1]), partial(write, decoders[1:]), model.decoder


def backlog(options: argparse.Namespace) -> dict[str, object]:
    chunk, counter = options.chunk_ms * SAMPLE_RATE // 1000, PassCounter()
    with voxfast.load(options.model, dtype=mx.float32) as model, counter.counting():
        late, *audio = pieces(options.sessions, options.backlog)
        expected = [in_turn(model, [samples], chunk)[0] for samples in (late, *audio)]
        sessions = [model.session() for _ in audio]
        words: list[list[voxfast.Word]] = [[] for _ in audio]
        waited: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            catching_up = pool.submit(in_turn, model, [late], len(late))
            for at in range(0, len(late), chunk):
                for session, samples in zip(sessions, audio, strict=True):
                    session.insert(samples[at : at + chunk])
                is_beside = not catching_up.done()
                for session, found in zip(sessions, words, strict=True):
                    counter.waited = 0
                    found += session.process()
                    if is_beside:
                        waited.append(counter.waited)
            written = catching_up.result()
        for session, found in zip(sessions, words, strict=True):
            found += session.finish()
    return {
        "model": options.model,
        "sessions": options.sessions,
        "backlog_s": options.backlog,
        "chunk_ms": options.chunk_ms,
        "passes_waited": {str(passes): waited.count(passes) for passes in sorted(set(waited))},
        "words_equal": [*written, *words] == expected,
    }


class PassCounter:
    """Counts the passes of Voxtral's decoder, of all streams together.

    Attributes:
        passes: so far.
        waited: those that ran between a call of the main thread and its reply, on the owner
            thread. (Until the main thread sees the reply it may wait for Python's lock.)
    """

    def __init__(self) -> None:
        self.passes = self.waited = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """The time in which passes are counted."""
        run, post = tokens.run, OwnerThread.post

        def counted(*args: Any) -> Any:
            self.passes += 1
            return run(*args)

        def noted(owner: OwnerThread, reply: Any, function: Callable[[], Any]) -> None:
            asked, is_main = self.passes, threading.current_thread() is threading.main_thread()

            def waited_for() -> Any:
                result = function()
                self.waited += self.passes - asked
                return result

            post(owner, reply, waited_for if is_main else function)

        with patch.object(tokens, "run", counted), patch.object(OwnerThread, "post", noted):
            yield


def live(options: argparse.Namespace) -> dict[str, object]:
    chunk, step = 1280, 0.08
    lags, busy = [], 0.0
    with voxfast.load(options.model, dtype=mx.float32) as model:
        audio = load_audio(CLIP)
        sessions = [model.session() for _ in range(options.live)]
        at = np.linspace(0, len(audio) - chunk, options.live).astype(int)
        begin = time.perf_counter()
        for tick in range(int(options.minutes * 60 / step)):
            for number, session in enumerate(sessions):
                place = (at[number] + tick * chunk) % (len(audio) - chunk)
                session.insert(audio[place : place + chunk])
            start = time.perf_counter()
            for session in sessions:
                session.process()
            end = time.perf_counter()
            busy += end - start
            lags.append(end - begin - (tick + 1) * step)
            time.sleep(max(0.0, begin + (tick + 1) * step - end))
        for session in sessions:
            session.finish()
    opening = round(1 / step)
    return {
        "model": options.model,
        "live_sessions": options.live,
        "minutes": options.minutes,
        "largest_lag_while_opening_s": round(max(0.0, *lags[:opening]), 3),
        "largest_lag_s": round(max(0.0, *lags[opening:]), 3),
        "late_chunks": sum(lag > 0 for lag in lags[opening:]),
        "least_spare_s": round(-max(lags[opening:]), 3),
        "busy": round(busy / (options.minutes * 60), 3),
        "resident_mb": round(resident_mb()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="voxtral-numbers")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--chunk-ms", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--full", choices=tuple(BITS))
    parser.add_argument("--passes", type=int, default=10, help="of a race at full size")
    parser.add_argument("--backlog", type=float, metavar="SECONDS")
    parser.add_argument("--live", type=int)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    run = race
    if options.live:
        run = live
    elif options.backlog:
        run = backlog
    elif options.full:
        run = full
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
