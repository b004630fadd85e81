"""Fills pools with speech; ``python -m tools.train.synthesis --out DIR [POOL …]`` goes on.

Needs no PyTorch. A pool grows by shards of some minutes, each of which follows from the seed and
its number alone: what is stopped goes on, and what is made again is the same up to the engines'
own arithmetic.
"""

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .engines import STYLES, Engine, Speaker, Style, engine
from .grammar import draw_digits, draw_drill, draw_phrase, draw_rare
from .mixture import POOLS, PoolPlan
from .others import draw_others
from .pool import MANIFEST, read_manifest, write_shard
from .speech import FADE, PEAK, SAMPLE_RATE, Phrase, Word, faded

__all__ = ["fill", "join", "say_phrase", "word_times"]

SHARD_SECONDS = 240
AUDIBLE = 0.01  # samples above this belong to a word; the peak is 0.6
STOP = 0.06  # seconds: a shorter gap before the next word is a closed stop, not a pause
SHORTEST, LONGEST = 0.06, 1.6  # seconds of a word; anything else is an accident
LEAST_AUDIBLE = 400  # samples of a word
MARGIN = 0.05  # seconds kept around a phrase
WORDS = (6, 14)  # of a phrase, so that the engines' time does not go into silence at its ends

Span = tuple[float, float]  # first and last second
TEXTS: dict[str, Callable[[Generator], tuple[str, ...]]] = {
    "phrases": draw_phrase,
    "drills": draw_drill,
    "digits": draw_digits,
    "others": draw_others,
    "rare": draw_rare,
    "names": partial(draw_rare, part=0.5),
}


def word_times(audio: NDArray[np.float32], starts: Sequence[float]) -> list[Span] | None:
    """(start, end) of each word: the audible part of the time until the next one starts.

    None where a word is silent, too short or too long.
    """
    bounds = [*(int(start * SAMPLE_RATE) for start in starts), len(audio)]
    spans = []
    for first, after in pairwise(bounds):
        loud = np.flatnonzero(np.abs(audio[first:after]) > AUDIBLE)
        if len(loud) < LEAST_AUDIBLE:
            return None
        silent = after - first - int(loud[-1])
        closes = silent < STOP * SAMPLE_RATE and after < len(audio)
        end = after if closes else first + int(loud[-1]) + 1
        spans.append(((first + max(0, int(loud[0]) - FADE)) / SAMPLE_RATE, end / SAMPLE_RATE))
    lengths = [end - start for start, end in spans]
    return spans if min(lengths) >= SHORTEST and max(lengths) <= LONGEST else None


def join(
    pieces: Sequence[tuple[str, NDArray[np.float32]]], rng: Generator
) -> tuple[NDArray[np.float32], list[Word]]:
    """Words that were cut out, with random gaps of 0.02 to 0.6 s, half of them below 0.12 s."""
    parts, words, samples = [], [], 0
    for text, audio in pieces:
        audio = faded(audio)
        gap = rng.uniform(0.02, 0.12) if rng.random() < 0.5 else rng.uniform(0.1, 0.6)
        words.append(Word(text, samples / SAMPLE_RATE, (samples + len(audio)) / SAMPLE_RATE))
        parts += [audio, np.zeros(int(gap * SAMPLE_RATE), np.float32)]
        samples += len(audio) + len(parts[-1])
    return np.concatenate(parts), words


def say_phrase(
    speech: Engine, texts: Sequence[str], style: Style, speaker: Speaker, rng: Generator
) -> Phrase | None:
    """``texts`` in that style, or None where the engine went wrong: the caller draws others."""
    if style.apart and not speech.pauses:
        said = [_say(speech, [text], style, speaker, rng) for text in texts]
    else:
        said = [_say(speech, texts, style, speaker, rng)]
    spoken = [part for part in said if part is not None]
    if len(spoken) < len(said):
        return None
    voice = f"{spoken[0][2]} {speaker.number}"
    if style.apart:
        cuts = [_cut(audio, span) for audio, spans, _ in spoken for span in spans]
        audio, words = join(list(zip(texts, cuts, strict=True)), rng)
        return Phrase(audio, words, voice)
    audio, spans, _ = spoken[0]
    first = max(0.0, spans[0][0] - MARGIN)
    words = [Word(text, a - first, b - first) for text, (a, b) in zip(texts, spans, strict=True)]
    return Phrase(_cut(audio, (first, spans[-1][1] + MARGIN)), words, voice)


Said = tuple[NDArray[np.float32], list[Span], str]


def _say(
    speech: Engine, texts: Sequence[str], style: Style, speaker: Speaker, rng: Generator
) -> Said | None:
    utterance = speech.say(texts, style, speaker, rng)
    audio = _to_peak(utterance.audio)
    if audio is None or len(utterance.starts) != len(texts):
        return None
    spans = word_times(audio, utterance.starts)
    return None if spans is None else (audio, spans, utterance.voice)


def say_others(
    speech: Engine, texts: Sequence[str], style: Style, speaker: Speaker, rng: Generator
) -> Phrase | None:
    """Other words than those of the vocabulary: a phrase without words."""
    utterance = speech.say(texts, style, speaker, rng)
    audio = _to_peak(utterance.audio)
    if audio is None:
        return None
    loud = np.flatnonzero(np.abs(audio) > AUDIBLE) / SAMPLE_RATE
    audio = _cut(audio, (max(0.0, float(loud[0]) - MARGIN), float(loud[-1]) + MARGIN))
    return Phrase(audio, [], f"{utterance.voice} {speaker.number}")


def _to_peak(audio: NDArray[np.float32]) -> NDArray[np.float32] | None:
    peak = float(np.abs(audio).max(initial=0))
    return None if peak < 0.01 else (audio * (PEAK / peak)).astype(np.float32)


def _cut(audio: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    return audio[int(span[0] * SAMPLE_RATE) : int(span[1] * SAMPLE_RATE)]


def draw_texts(kind: str, rng: Generator) -> tuple[str, ...]:
    """Enough phrases of that kind for a phrase of 6 words or more."""
    texts: list[str] = []
    while len(texts) < WORDS[0]:
        texts += TEXTS[kind](rng)
    return tuple(texts[: WORDS[1]])


def make_shard(plan: PoolPlan, number: int, shard_seconds: float) -> list[Phrase]:
    """The phrases of one shard."""
    rng = np.random.default_rng((plan.seed, number))
    speech = engine(plan.engine)
    phrases: list[Phrase] = []
    seconds, failures = 0.0, 0
    while seconds < shard_seconds:
        style = STYLES[_draw(plan.styles, rng)]
        speaker = Speaker(int(rng.integers(*plan.speakers)))
        kind = _draw(plan.texts, rng)
        say = say_others if kind == "others" else say_phrase
        phrase = say(speech, draw_texts(kind, rng), style, speaker, rng)
        if phrase is None:
            failures += 1
            if failures > 100 + 10 * len(phrases):
                raise RuntimeError(f"{plan.engine} fails nearly always: {failures} times")
            continue
        phrases.append(phrase)
        seconds += phrase.seconds
    return phrases


def _draw(weights: dict[str, float], rng: Generator) -> str:
    names = list(weights)
    parts = np.array(list(weights.values()))
    return names[int(rng.choice(len(names), p=parts / parts.sum()))]


def fill(folder: Path, plan: PoolPlan, hours: float, shard_seconds: float = SHARD_SECONDS) -> float:
    """Adds shards to the pool until it has ``hours``; returns the hours that it has.

    Raises:
        SystemExit: the folder was made by another plan.
    """
    manifest = _open(folder, plan)
    shards = manifest["shards"]
    while sum(shard["seconds"] for shard in shards) < 3600 * hours:
        begin = time.monotonic()
        entry = write_shard(folder, len(shards), make_shard(plan, len(shards), shard_seconds))
        shards.append({**entry, "took": round(time.monotonic() - begin, 1)})
        _save(folder, manifest)
        total = sum(shard["seconds"] for shard in shards) / 3600
        print(f"  {plan.name}: {total:.2f} h, the last {entry['seconds']:.0f} s took "
              f"{shards[-1]['took']:.0f} s", flush=True)  # fmt: skip
    return float(sum(shard["seconds"] for shard in shards)) / 3600


def _open(folder: Path, plan: PoolPlan) -> dict[str, Any]:
    settings = json.loads(json.dumps({k: v for k, v in asdict(plan).items() if k != "hours"}))
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest["plan"] != settings:
            raise SystemExit(f"{folder} was made by another plan: delete it, or choose --out")
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    versions = {name: _version(name) for name in engine(plan.engine).packages}
    return {"plan": settings, "sources": versions, "shards": []}


def _save(folder: Path, manifest: dict[str, Any]) -> None:
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def _version(package: str) -> str:
    """The version of a Python distribution, else of a Debian package, else "unknown"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
    if shutil.which("dpkg-query") is None:
        return "unknown"
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.train.synthesis", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pools")
    parser.add_argument("--scale", type=float, default=1.0, help="times the hours of the table")
    parser.add_argument("pools", nargs="*", metavar="POOL", help=", ".join(POOLS))
    options = parser.parse_args()
    if unknown := set(options.pools) - set(POOLS):
        parser.error(f"no pool {', '.join(sorted(unknown))}: choose from {', '.join(POOLS)}")
    for name in options.pools or POOLS:
        fill(options.out / name, POOLS[name], options.scale * POOLS[name].hours)


if __name__ == "__main__":
    main()
