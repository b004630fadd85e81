"""A pool of spoken phrases on disk, synthesised once and read through a memory map."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .grammar import VOCABULARY, draw_phrase
from .speech import SAMPLE_RATE, Phrase, Word, draw_voice, speak

__all__ = ["Pool", "write_pool"]

_AUDIO, _INDEX = "audio.i16", "index.npz"
_PHRASE = np.dtype([("voice", "i4"), ("sample", "i8"), ("word", "i8")])  # where each one begins
_WORD = np.dtype([("id", "i4"), ("start", "f4"), ("end", "f4")])


def write_pool(folder: Path, hours: float, voices: list[str], seed: int) -> str:
    """Synthesises ``hours`` of random phrases into ``folder``; returns a line about them."""
    rng = np.random.default_rng(seed)
    ids = {text: number for number, text in enumerate(VOCABULARY)}
    phrases: list[tuple[int, int, int]] = []
    words: list[tuple[int, float, float]] = []
    samples = rejected = 0
    with (folder / _AUDIO).open("wb") as file:
        while samples < hours * 3600 * SAMPLE_RATE:
            voice = int(rng.integers(len(voices)))
            phrase = speak(draw_phrase(rng), draw_voice(voices[voice], rng))
            if phrase is None:
                rejected += 1
                continue
            phrases.append((voice, samples, len(words)))
            words += [(ids[word.text], word.start, word.end) for word in phrase.words]
            file.write((phrase.audio * 32767).astype("<i2").tobytes())
            samples += len(phrase.audio)
    count = len(phrases)
    phrases.append((-1, samples, len(words)))  # where the last one ends
    np.savez(
        folder / _INDEX,
        phrases=np.array(phrases, _PHRASE),
        words=np.array(words, _WORD),
        voices=np.array(voices),
    )
    return (
        f"{count} phrases, {len(words)} words, {samples / SAMPLE_RATE / 3600:.3f} h, "
        f"{rejected} rejected"
    )


class Pool:
    """The phrases of a folder that ``write_pool`` made."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / _INDEX) as index:
            self._phrases = index["phrases"]
            self._words = index["words"]
            self._voices = index["voices"].tolist()
        self._audio: NDArray[np.int16] = np.memmap(folder / _AUDIO, dtype="<i2", mode="r")
        by_phrase = self._phrases["voice"][:-1]
        self._of_voice = [np.flatnonzero(by_phrase == voice) for voice in np.unique(by_phrase)]

    def __len__(self) -> int:
        return len(self._phrases) - 1

    def __getitem__(self, number: int) -> Phrase:
        first, after = self._phrases[number], self._phrases[number + 1]
        audio = self._audio[first["sample"] : after["sample"]].astype(np.float32) / np.float32(
            32767
        )
        words = [
            Word(VOCABULARY[word["id"]], float(word["start"]), float(word["end"]))
            for word in self._words[first["word"] : after["word"]]
        ]
        return Phrase(audio, words, self._voices[first["voice"]])

    def choose(self, rng: Generator, one_voice: bool) -> NDArray[np.int64]:
        """Numbers of the phrases to draw a clip from: those of one random voice, or all."""
        if one_voice:
            return self._of_voice[int(rng.integers(len(self._of_voice)))]
        return np.arange(len(self))

    def sentences(self) -> set[tuple[str, ...]]:
        """The texts of all phrases."""
        bounds = self._phrases["word"].tolist()
        texts = [VOCABULARY[number] for number in self._words["id"].tolist()]
        return {tuple(texts[a:b]) for a, b in pairwise(bounds)}
