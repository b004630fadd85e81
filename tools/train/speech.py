"""Spoken phrases at 16 kHz with the times of their words, and the voices that speak them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from .espeak import VoiceSettings, espeak

__all__ = [
    "HELD_OUT_VARIANTS",
    "SAMPLE_RATE",
    "TRAINING_VARIANTS",
    "Phrase",
    "Word",
    "draw_voice",
    "speak",
    "voice_names",
]

SAMPLE_RATE = 16000
PEAK = 0.6
AUDIBLE = 0.006  # samples above this belong to speech; 40 dB below the peak
SHORTEST_WORD = 0.03  # seconds; anything shorter is a synthesis accident

# British English is plain "en": espeak-ng refuses "en-gb+variant".
ACCENTS = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
    "en-us-nyc",
)  # fmt: skip
TRAINING_VARIANTS = (
    "f1", "f3", "f4", "f5", "m1", "m2", "m3", "m5", "m6", "Andy", "Annie", "Mike", "Lee", "Gene",
    "Michael", "anika", "belinda", "david", "john", "linda", "paul", "rob", "steph", "victor",
    "zac", "Mario", "Jacky", "Alex", "edward", "grandma", "Diogo", "sandro",
)  # fmt: skip
HELD_OUT_VARIANTS = ("f2", "m4", "m7", "Andrea")


class Word(NamedTuple):
    """A word and its place in the audio, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Phrase:
    """Speech without noise.

    Attributes:
        audio: [N] float32 at 16 kHz.
        words: in order, in seconds of ``audio``. A word ends where the next one starts; the
            last one ends with the last audible sample.
        voice: espeak-ng's name of the voice.
    """

    audio: NDArray[np.float32]
    words: list[Word]
    voice: str

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


def voice_names(variants: Sequence[str]) -> list[str]:
    """Every accent with every one of the ``variants``."""
    return [f"{accent}+{variant}" for accent in ACCENTS for variant in variants]


def draw_voice(name: str, rng: Generator) -> VoiceSettings:
    """The voice with a random rate, pitch and word gap."""
    return VoiceSettings(
        name,
        rate=int(rng.integers(110, 221)),
        pitch=int(rng.integers(30, 71)),
        pitch_range=int(rng.integers(30, 71)),
        word_gap=int(rng.choice([0, 0, 0, 0, 1, 2, 4])),
    )


def speak(texts: Sequence[str], voice: VoiceSettings) -> Phrase | None:
    """Speaks the words ``texts`` as one phrase.

    Returns None where espeak-ng joined words into one event, said nothing audible, or gave a
    word no time: the caller draws another phrase.
    """
    speech = espeak().say(" ".join(texts), voice)
    positions = np.cumsum([0] + [len(text) + 1 for text in texts[:-1]]).tolist()
    if [position for position, _ in speech.word_starts] != positions:
        return None
    audio = soxr.resample(
        speech.samples.astype(np.float32) / 32768, espeak().sample_rate, SAMPLE_RATE, quality="HQ"
    )
    peak = float(np.abs(audio).max(initial=0))
    if peak < 0.01:
        return None
    audio *= PEAK / peak
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE) / SAMPLE_RATE
    starts = [sample / espeak().sample_rate for _, sample in speech.word_starts]
    starts[0] = max(starts[0], float(audible[0]) - 0.01, 0.0)  # its event may precede the sound
    ends = [*starts[1:], float(audible[-1]) + 1 / SAMPLE_RATE]
    if min(end - start for start, end in zip(starts, ends, strict=True)) < SHORTEST_WORD:
        return None
    return Phrase(audio, [Word(*w) for w in zip(texts, starts, ends, strict=True)], voice.name)
