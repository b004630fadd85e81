"""Words written where none is to be: noise, and speech outside of a checkpoint's vocabulary.

    python benches/rejection.py [FOLDER ...] [--model MODEL ...] [--seconds 60] [--minutes M]
                                [--seed 8] [--json FILE]
    python benches/rejection.py tests/data/real --model voxtral-numbers tests/data/qwen3-asr-numbers

Every word that is written is one too many; they are counted per minute of audio. The sources:

- each FOLDER: the audio files in it and below it, or, of a pool that tools/train has made
  (evaluation_others: other words by synthetic voices), its phrases. Each file or phrase is a stream
  of its own. ``--minutes`` ends each folder after so much of it, drawn at random;
- noise: ``--seconds`` of each kind and each level as one stream. The level is the RMS, in dB of
  full scale, of what is audible: between clicks and beeps is silence. The draw depends on the seed
  and on the kind alone, so a figure can be repeated.

Qwen3-ASR is told the language. ``--json`` also has the words that were written.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import voxfast
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.scoring import normalise_words

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from train.pool import MANIFEST, Pool

AUDIO_FILES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
LEVELS_DB = (-50, -30, -15)
AUDIBLE = 0.01  # of the loudest sample

Audio = NDArray[np.float32]
Noise = NDArray[np.floating[Any]]


class Source(NamedTuple):
    """Something to write nothing for.

    Attributes:
        name: as the table has it.
        streams: each gives [N] float32 at 16 kHz when it is called.
        is_noise: whether it was generated here.
    """

    name: str
    streams: Sequence[Callable[[], Audio]]
    is_noise: bool


# -- noise: functions of the number of samples and a generator, at any level


def white(samples: int, rng: Generator) -> Noise:
    return rng.standard_normal(samples)


def pink(samples: int, rng: Generator) -> Noise:
    return coloured(samples, rng, 0.5, 20, SAMPLE_RATE / 2)


def rumble(samples: int, rng: Generator) -> Noise:
    """A fan, or traffic behind a window: brown noise below 200 Hz."""
    return coloured(samples, rng, 1, 20, 200)


def coloured(samples: int, rng: Generator, slope: float, low: float, high: float) -> Noise:
    """Noise of a band; its amplitude falls with the frequency to the power ``slope``."""
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    inside = (frequencies >= low) & (frequencies <= high)
    gains = np.where(inside, np.maximum(frequencies, 1) ** -slope, 0)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * gains, samples)


def hum(samples: int, rng: Generator) -> Noise:
    """The mains: 50 Hz and nine harmonics."""
    time = np.arange(samples) / SAMPLE_RATE
    phases = rng.uniform(0, 2 * np.pi, 10)
    return sum(np.sin(2 * np.pi * 50 * n * time + phases[n - 1]) / n for n in range(1, 11))


def beeps(samples: int, rng: Generator) -> Noise:
    """An alarm, a microwave oven: one to four beeps in a row, a pause."""
    audio, at = np.zeros(samples), 0
    while at < samples:
        frequency, length = rng.uniform(400, 3000), int(rng.uniform(0.06, 0.3) * SAMPLE_RATE)
        for _ in range(int(rng.integers(1, 5))):
            put(audio, at, np.sin(2 * np.pi * frequency * np.arange(length) / SAMPLE_RATE))
            at += 2 * length
        at += int(rng.uniform(0.3, 1.5) * SAMPLE_RATE)
    return audio


def clicks(samples: int, rng: Generator) -> Noise:
    """Keys and mice: bursts of noise of 20 ms that die away, two to eight a second."""
    audio, at = np.zeros(samples), 0
    shape = np.exp(-np.arange(int(0.02 * SAMPLE_RATE)) / (0.004 * SAMPLE_RATE))
    while at < samples:
        put(audio, at, rng.uniform(0.4, 1) * rng.standard_normal(len(shape)) * shape)
        at += int(rng.uniform(0.125, 0.5) * SAMPLE_RATE)
    return audio


def tones(samples: int, rng: Generator) -> Noise:
    """Something like music: plucked notes with harmonics over chords, 120 beats a minute."""
    audio, beat = np.zeros(samples), SAMPLE_RATE // 2
    for number, at in enumerate(range(0, samples, beat)):
        if number % 4 == 0:
            root = int(rng.integers(45, 57))
            for step in (0, 4, 7):
                put(audio, at, 0.5 * note(root + step, 4 * beat))
        put(audio, at, note(root + 12 + int(rng.choice([0, 2, 4, 7, 9])), beat))
    return audio


def note(number: int, samples: int) -> Noise:
    """A note by its MIDI number, with five harmonics, dying away."""
    time = np.arange(samples) / SAMPLE_RATE
    frequency = 440 * 2 ** ((number - 69) / 12)
    harmonics = sum(np.sin(2 * np.pi * n * frequency * time) / n**1.5 for n in range(1, 7))
    return harmonics * np.exp(-2 * time) * np.minimum(1, time / 0.01)


def put(audio: Noise, at: int, sound: Noise) -> None:
    """Add a sound, as far as there is room for it."""
    audio[at : at + len(sound)] += sound[: max(0, len(audio) - at)]


KINDS: dict[str, Callable[[int, Generator], Noise]] = {
    function.__name__: function for function in (white, pink, hum, beeps, clicks, rumble, tones)
}


def make_noise(kind: str, level_db: float, seconds: float, seed: int) -> Audio:
    """Noise whose audible samples have a level, clipped at full scale."""
    rng = np.random.default_rng((seed, *kind.encode()))
    return at_level(KINDS[kind](int(seconds * SAMPLE_RATE), rng), level_db)


def at_level(audio: Noise, level_db: float) -> Audio:
    """Audio whose audible samples have a level, clipped at full scale."""
    audible = audio[np.abs(audio) > AUDIBLE * np.abs(audio).max()]
    gain = 10 ** (level_db / 20) / np.sqrt((audible**2).mean())
    return np.clip(gain * audio, -1, 1).astype(np.float32)


def noises(seconds: float, seed: int) -> Iterator[Source]:
    yield Source("silence", [lambda: np.zeros(int(seconds * SAMPLE_RATE), np.float32)], True)
    for kind in KINDS:
        for level_db in LEVELS_DB:
            make = partial(make_noise, kind, level_db, seconds, seed)
            yield Source(f"{kind}, {level_db} dBFS", [make], True)


# -- folders


def read_folder(folder: Path) -> Source:
    """The recordings in a folder and below it, or the phrases of a pool.

    Raises:
        SystemExit: there are none.
    """
    streams: list[Callable[[], Audio]]
    if (folder / MANIFEST).exists():
        pool = Pool(folder)
        streams = [partial(phrase, pool, number) for number in range(len(pool))]
    else:
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix in AUDIO_FILES]
        streams = [partial(load_audio, path) for path in paths]
    if not streams:
        raise SystemExit(f"{folder} has no {', '.join(AUDIO_FILES)} files, and is no pool")
    return Source(str(folder), streams, False)


def phrase(pool: Pool, number: int) -> Audio:
    return pool[number].audio


def some(source: Source, minutes: float | None, seed: int) -> Source:
    """No more of a source than such a time, and a stream that goes beyond it."""
    if minutes is None:
        return source
    chosen, samples = [], 0
    for place in np.random.default_rng(seed).permutation(len(source.streams)):
        if samples >= 60 * minutes * SAMPLE_RATE:
            break
        chosen.append(source.streams[place])
        samples += len(chosen[-1]())
    return source._replace(streams=chosen)


# -- figures


def measure(model: voxfast.Model, source: Source) -> dict[str, Any]:
    """One row: what a model writes for a source."""
    options: dict[str, Any] = {} if model.delays_ms else {"language": "en"}
    samples, written = 0, Counter[str]()
    for read in source.streams:
        audio = read()
        samples += len(audio)
        words = voxfast.transcribe(audio, model=model, **options).words
        written.update(word.text for word in normalise_words(words))
    return row(source.name, source.is_noise, samples / SAMPLE_RATE, written)


def row(name: str, is_noise: bool, seconds: float, written: Counter[str]) -> dict[str, Any]:
    return {
        "source": name,
        "is_noise": is_noise,
        "seconds": seconds,
        "words": written.total(),
        "words_per_minute": 60 * written.total() / seconds,
        "written": dict(written.most_common()),
    }


def all_noise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of all noise together."""
    parts = [part for part in rows if part["is_noise"]]
    written = sum((Counter(part["written"]) for part in parts), Counter[str]())
    return row("all noise", True, sum(part["seconds"] for part in parts), written)


def table(models: dict[str, list[dict[str, Any]]]) -> Table:
    """Sources below each other, models beside each other."""
    result = Table()
    result.add_column("source")
    result.add_column("minutes", justify="right")
    for name in models:
        result.add_column(f"{Path(name).name}\nwords", justify="right")
        result.add_column("words\nper minute", justify="right")
    for rows in zip(*models.values(), strict=True):
        cells = [(str(one["words"]), f"{one['words_per_minute']:.1f}") for one in rows]
        minutes = f"{rows[0]['seconds'] / 60:.1f}"
        result.add_row(rows[0]["source"], minutes, *(cell for pair in cells for cell in pair))
    return result


def print_table(table: Table) -> None:
    # Without a terminal, rich takes lines to be 80 characters long.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--model", nargs="+", default=[voxfast.DEFAULT_MODEL])
    parser.add_argument("--seconds", type=float, default=60, help="of each noise (default 60)")
    parser.add_argument("--minutes", type=float, help="of each folder (default: all of it)")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sources = [some(read_folder(folder), args.minutes, args.seed) for folder in args.folders]
    sources += noises(args.seconds, args.seed)
    models: dict[str, list[dict[str, Any]]] = {}
    for name in args.model:
        with voxfast.load(name) as model:
            progress = track(sources, name, console=Console(stderr=True), transient=True)
            models[name] = [measure(model, source) for source in progress]
    shown = {name: [*rows, all_noise(rows)] for name, rows in models.items()}
    print_table(table(shown))
    if args.json:
        document = {"seed": args.seed, "models": models}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
