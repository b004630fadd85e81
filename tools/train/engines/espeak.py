"""espeak-ng: many accents and variants of one formant synthesiser."""

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.random import Generator

from ..speech import PEAK, SAMPLE_RATE, Phrase, Word
from .base import Speaker, Style, Utterance
from .libespeak import VoiceSettings, espeak

__all__ = [
    "HELD_OUT_VARIANTS",
    "TRAINING_VARIANTS",
    "Espeak",
    "draw_voice",
    "load",
    "speak",
    "voice_names",
]

AUDIBLE = 0.006  # samples above this belong to speech; 40 dB below the peak
SHORTEST_WORD = 0.03  # seconds; anything shorter is a synthesis accident
RATE = 165  # words per minute at tempo 1

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


def say(text: str, words: Sequence[str], voice: VoiceSettings) -> Utterance:
    """Speaks ``text``, which has the ``words`` with a separator between each two."""
    speech = espeak().say(text, voice)
    audio = soxr.resample(
        speech.samples.astype(np.float32) / 32768, espeak().sample_rate, SAMPLE_RATE, quality="HQ"
    )
    separator = (len(text) - sum(map(len, words))) // max(1, len(words) - 1)
    lengths = [len(word) + separator for word in words]
    positions = np.cumsum([0, *lengths[:-1]]).tolist()
    # espeak-ng gives some pairs of words one event.
    known = [position for position, _ in speech.word_starts] == positions
    starts = [sample / espeak().sample_rate for _, sample in speech.word_starts] if known else []
    return Utterance(audio, starts, f"espeak {voice.name}")


def speak(texts: Sequence[str], voice: VoiceSettings) -> Phrase | None:
    """Speaks the words ``texts`` as one phrase; a word ends where the next one starts.

    Returns None where espeak-ng joined words into one event, said nothing audible, or gave a
    word no time: the caller draws another phrase.
    """
    utterance = say(" ".join(texts), texts, voice)
    audio, starts = utterance.audio, utterance.starts
    peak = float(np.abs(audio).max(initial=0))
    if peak < 0.01 or not starts:
        return None
    audio = audio * np.float32(PEAK / peak)
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE) / SAMPLE_RATE
    starts[0] = max(starts[0], float(audible[0]) - 0.01, 0.0)  # its event may precede the sound
    ends = [*starts[1:], float(audible[-1]) + 1 / SAMPLE_RATE]
    if min(end - start for start, end in zip(starts, ends, strict=True)) < SHORTEST_WORD:
        return None
    return Phrase(audio, [Word(*w) for w in zip(texts, starts, ends, strict=True)], voice.name)


class Espeak:
    """The number of a pseudo-speaker is that of an accent with a variant."""

    packages = ("espeak-ng",)
    pauses = False  # it counts characters anew after each full stop

    def __init__(self, variants: Sequence[str]) -> None:
        self._voices = voice_names(variants)
        espeak()

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        voice = draw_voice(self._voices[speaker.number % len(self._voices)], rng)
        voice = VoiceSettings(
            voice.name,
            int(RATE * style.draw_tempo(rng)),
            voice.pitch,
            voice.pitch_range,
            voice.word_gap,
        )
        return say(style.separator.join(words), words, voice)


def load(variants: str = "") -> Espeak:
    return Espeak(HELD_OUT_VARIANTS if variants == "unseen" else TRAINING_VARIANTS)
