"""Pools of spoken phrases on disk, in shards, read through memory maps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .grammar import WORDS
from .speech import SAMPLE_RATE, Phrase, Word

__all__ = ["MANIFEST", "Mixture", "Pool", "read_manifest", "write_shard"]

MANIFEST = "pool.json"
_PHRASE = np.dtype([("voice", "i4"), ("sample", "i8"), ("word", "i8")])  # where each one begins
_WORD = np.dtype([("id", "i4"), ("start", "f4"), ("end", "f4")])
_PLACES = 64  # phrases to draw a clip of several voices from


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a pool was made with, and its shards."""
    document: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return document


def write_shard(folder: Path, number: int, phrases: Sequence[Phrase]) -> dict[str, Any]:
    """Writes shard ``number`` and returns its entry of the manifest."""
    voices = sorted({phrase.voice for phrase in phrases})
    rows: list[tuple[int, int, int]] = []
    words: list[tuple[int, float, float]] = []
    samples = 0
    audio, index = _files(folder, number)
    with audio.open("wb") as file:
        for phrase in phrases:
            rows.append((voices.index(phrase.voice), samples, len(words)))
            words += [(WORDS.index(text), start, end) for text, start, end in phrase.words]
            file.write((np.clip(phrase.audio, -1, 1) * 32767).astype("<i2").tobytes())
            samples += len(phrase.audio)
    rows.append((-1, samples, len(words)))  # where the last one ends
    np.savez(
        index,
        phrases=np.array(rows, _PHRASE),
        words=np.array(words, _WORD),
        voices=np.array(voices),
    )
    seconds = round(samples / SAMPLE_RATE, 2)
    return {"phrases": len(phrases), "words": len(words), "seconds": seconds}


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:04d}.i16", folder / f"{number:04d}.npz"


class Pool:
    """The phrases of a folder: all shards that its manifest has when it is opened."""

    def __init__(self, folder: Path) -> None:
        shards = range(len(read_manifest(folder)["shards"]))
        self._audio: list[NDArray[np.int16]] = []
        self._voices: list[str] = []
        phrases, words = [], []
        for number in shards:
            audio, index = _files(folder, number)
            self._audio.append(np.memmap(audio, dtype="<i2", mode="r"))
            with np.load(index) as arrays:
                words.append(arrays["words"])
                phrases.append(self._rows(number, arrays["phrases"], arrays["voices"].tolist()))
        self._words = words
        # Columns: shard, voice, first and last sample, first and last word.
        self._phrases = np.concatenate(phrases) if phrases else np.zeros((0, 6), np.int64)
        by_phrase = self._phrases[:, 1]
        self._of_voice = [np.flatnonzero(by_phrase == v) for v in range(len(self._voices))]

    def _rows(
        self, shard: int, phrases: NDArray[np.void], voices: Sequence[str]
    ) -> NDArray[np.int64]:
        self._voices += [voice for voice in voices if voice not in self._voices]
        known = [self._voices.index(voices[voice]) for voice in phrases["voice"][:-1]]
        columns = [np.full(len(known), shard), np.array(known)]
        for name in ("sample", "word"):
            columns += [phrases[name][:-1], phrases[name][1:]]
        return np.stack(columns, axis=1).astype(np.int64)

    def __len__(self) -> int:
        return len(self._phrases)

    @property
    def seconds(self) -> float:
        return sum(map(len, self._audio)) / SAMPLE_RATE

    def __getitem__(self, number: int) -> Phrase:
        shard, voice, first, after, word, last = self._phrases[number].tolist()
        audio = self._audio[shard][first:after].astype(np.float32) / np.float32(32767)
        words = [
            Word(WORDS[entry["id"]], float(entry["start"]), float(entry["end"]))
            for entry in self._words[shard][word:last]
        ]
        return Phrase(audio, words, self._voices[voice])

    def choose(self, rng: Generator, one_voice: bool) -> NDArray[np.int64]:
        """Numbers of the phrases to draw a clip from: those of one random voice, or of all."""
        if one_voice:
            return self._of_voice[int(rng.integers(len(self._of_voice)))]
        return rng.integers(0, len(self), _PLACES)

    def sentences(self) -> set[tuple[str, ...]]:
        """The texts of all phrases."""
        texts = set()
        for shard, _, _, _, first, last in self._phrases.tolist():
            ids = self._words[shard]["id"][first:last]
            texts.add(tuple(WORDS[number] for number in ids))
        return texts


class Mixture:
    """Several pools behind the interface of one; a pool's part says how often it is drawn from."""

    def __init__(self, pools: Mapping[str, Pool], parts: Mapping[str, float]) -> None:
        self._pools = [pools[name] for name in parts]
        weights = np.array([parts[name] for name in parts], float)
        self._parts = weights / weights.sum()
        self._first = np.cumsum([0, *map(len, self._pools)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, number: int) -> Phrase:
        which = int(np.searchsorted(self._first, number, "right")) - 1
        return self._pools[which][int(number - self._first[which])]

    def choose(self, rng: Generator, one_voice: bool) -> NDArray[np.int64]:
        """As ``Pool.choose``; the phrases of one voice come from one pool."""
        if one_voice:
            which = int(rng.choice(len(self._pools), p=self._parts))
            first = int(self._first[which])
            return first + self._pools[which].choose(rng, one_voice=True)
        which_ones = rng.choice(len(self._pools), _PLACES, p=self._parts)
        return np.array(
            [self._first[w] + rng.integers(len(self._pools[w])) for w in which_ones.tolist()]
        )
