"""Words written in an hour of noise, which is one stream, as a microphone that nobody talks to.

    python benches/noise.py [--model MODEL ...] [--minutes 60] [--all] [--seed 8] [--json FILE]

The hour is cut into equal parts: the noises of benches/rejection.py, brown noise, steady tones,
keys of a telephone and of a keyboard, each at -50, -30 and -15 dBFS (RMS of what is audible), and
silence. Parts follow each other without a gap, so that noise begins and ends abruptly. Each model
hears it with ``skip_silence``; with ``--all`` without it, too, and both without the checkpoint's
``least_probability``. Every word that is written is one too many.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rejection import KINDS, LEVELS_DB, Audio, Noise, at_level, coloured, print_table, put
from rich.table import Table
from vad import telephone_keys

import voxfast
from voxfast.audio import SAMPLE_RATE
from voxfast.bench.scoring import normalise_words
from voxfast.hub import resolve

QWEN_NUMBERS = Path(__file__).parent.parent / "tests" / "data" / "qwen3-asr-numbers"
BLOCK = SAMPLE_RATE  # samples that are fed at once


def brown(samples: int, rng: Generator) -> Noise:
    return coloured(samples, rng, 1, 20, SAMPLE_RATE / 2)


def sines(samples: int, rng: Generator) -> Noise:
    """Steady tones of 1 to 5 s, one or two at once."""
    audio, at = np.zeros(samples), 0
    while at < samples:
        n = np.arange(int(rng.uniform(1, 5) * SAMPLE_RATE))
        for frequency in rng.uniform(80, 4000, int(rng.integers(1, 3))):
            put(audio, at, np.sin(2 * np.pi * frequency / SAMPLE_RATE * n))
        at += len(n)
    return audio


def dtmf(samples: int, rng: Generator) -> Noise:
    return telephone_keys(samples / SAMPLE_RATE, int(rng.integers(1 << 30)))[:samples]


def keyboard(samples: int, rng: Generator) -> Noise:
    """Somebody types: a key goes down and up, a few times a second, and pauses to think."""
    audio, at = np.zeros(samples), 0
    while at < samples:
        for _ in range(int(rng.integers(3, 15))):
            for strength in (1.0, 0.4):
                length = int(rng.uniform(0.01, 0.04) * SAMPLE_RATE)
                fade = np.exp(-np.arange(length) / (0.2 * length))
                put(audio, at, strength * fade * np.diff(rng.standard_normal(length + 1)))
                at += int(rng.uniform(0.05, 0.11) * SAMPLE_RATE)
            at += int(rng.uniform(0.01, 0.15) * SAMPLE_RATE)
        at += int(rng.uniform(0.5, 3) * SAMPLE_RATE)
    return audio


ALL_KINDS: dict[str, Callable[[int, Generator], Noise]] = {
    **KINDS,
    **{function.__name__: function for function in (brown, sines, dtmf, keyboard)},
}


def hour(seconds: float, seed: int) -> list[tuple[str, Audio]]:
    """The parts, [N] float32 each, by what they are."""
    names = [(kind, level_db) for kind in ALL_KINDS for level_db in LEVELS_DB]
    samples = int(seconds * SAMPLE_RATE / (len(names) + 1))
    parts = [("silence", np.zeros(samples, np.float32))]
    for kind, level_db in names:
        rng = np.random.default_rng((seed, *kind.encode()))
        noise = ALL_KINDS[kind](samples, rng)
        parts.append((f"{kind}, {level_db} dBFS", at_level(noise, level_db)))
    order = np.random.default_rng(seed).permutation(len(parts))
    return [parts[place] for place in order]


def blocks(audio: NDArray[np.float32]) -> Iterator[Audio]:
    return (audio[at : at + BLOCK] for at in range(0, len(audio), BLOCK))


def keeps_all(name: str, folder: Path) -> str:
    """A copy of a checkpoint that writes words of any probability."""
    copy = folder / Path(name).name
    shutil.copytree(resolve(name), copy)
    traits = copy / "voxfast.json"
    content = json.loads(traits.read_text()) if traits.exists() else {}
    traits.write_text(json.dumps(content | {"least_probability": 0.0}))
    return str(copy)


def measure(model: voxfast.Model, parts: list[tuple[str, Audio]], skip: bool) -> dict[str, Any]:
    """What a model writes in the hour, by the part in which a word ends."""
    options: dict[str, Any] = {} if model.delays_ms else {"language": "en"}
    begin, words = time.process_time(), []
    with model.session(skip_silence=skip, **options) as session:
        for block in blocks(np.concatenate([audio for _, audio in parts])):
            words += session.feed(block)
        words += session.finish()
    ends = np.cumsum([len(audio) for _, audio in parts]) / SAMPLE_RATE
    written = Counter(
        f"{parts[min(int(np.searchsorted(ends, word.end)), len(parts) - 1)][0]}: {word.text}"
        for word in normalise_words(words)
    )
    return {
        "skip_silence": skip,
        "seconds": float(ends[-1]),
        "words": written.total(),
        "cpu_seconds": time.process_time() - begin,
        "written": dict(written.most_common()),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table("model", "skip_silence", "least_probability", "minutes", "words", "CPU seconds")
    for row in rows:
        result.add_row(
            row["model"],
            "yes" if row["skip_silence"] else "no",
            row["least_probability"],
            f"{row['seconds'] / 60:.0f}",
            str(row["words"]),
            f"{row['cpu_seconds']:.0f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="+", default=[voxfast.DEFAULT_MODEL, str(QWEN_NUMBERS)])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--all", action="store_true", help="also without what leaves words out")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    parts = hour(60 * args.minutes, args.seed)
    rows = []
    for name in args.model:
        with tempfile.TemporaryDirectory() as folder:
            for least in ("its own", "0") if args.all else ("its own",):
                path = keeps_all(name, Path(folder)) if least == "0" else name
                with voxfast.load(path) as model:
                    for skip in (True, False) if args.all else (True,):
                        row = measure(model, parts, skip)
                        rows.append({"model": Path(name).name, "least_probability": least} | row)
                        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print_table(table(rows))
    if args.json:
        document = {"seed": args.seed, "rows": rows}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
