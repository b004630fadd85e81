"""Clips: phrases with pauses between them, gains and noise, and what else is heard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .augment import (
    SPEECH_LEVEL,
    Acoustics,
    Range,
    amplitude,
    clip_peaks,
    coarse,
    echo,
    gate,
    hush,
    interference,
    lose,
    prolong,
)
from .pool import Mixture, Pool
from .speech import SAMPLE_RATE, Phrase, Word, faded

__all__ = [
    "TRAINING_STYLE",
    "Clip",
    "ClipStyle",
    "Noise",
    "assemble",
    "draw_clip",
    "draw_scene",
    "shortened",
]

SHORT = 0.4  # of the phrases
LEAST_CUT = 0.04  # seconds between two words where a phrase can be cut
MARGIN = 0.05  # seconds kept around a short phrase


class Pause(NamedTuple):
    """Pauses of ``shortest`` to ``longest`` seconds, taken with the given probability."""

    probability: float
    shortest: float
    longest: float


@dataclass(frozen=True)
class ClipStyle:
    """How clips are assembled; ranges are uniform.

    Attributes:
        pauses: kinds of pauses between phrases; their probabilities sum to 1.
        lead_in: seconds before the first phrase.
        no_lead_in: probability that the clip starts with speech at once.
        phrase_gain, clip_gain: decibels.
        tail: seconds at the end that stay without speech.
        misses: phrases that may fail to fit before the clip is closed.
    """

    pauses: tuple[Pause, ...]
    lead_in: Range = (0.0, 1.0)
    no_lead_in: float = 0.0
    phrase_gain: Range = (-3.0, 2.0)
    clip_gain: Range = (-8.0, 3.0)
    tail: float = 0.0
    misses: int = 4


TRAINING_STYLE = ClipStyle(
    pauses=(Pause(0.25, 0.0, 0.15), Pause(0.67, 0.0, 1.5), Pause(0.08, 1.5, 4.0)), no_lead_in=0.2
)


@dataclass(frozen=True)
class Clip:
    """Audio [N] float32 at 16 kHz, its words, and (voice, first second) wherever it changes."""

    audio: NDArray[np.float32]
    words: list[Word]
    voices: list[tuple[str, float]]


def assemble(
    next_phrase: Callable[[float], Phrase], seconds: float, style: ClipStyle, rng: Generator
) -> Clip:
    """A clip of ``seconds``, filled with phrases as long as they fit.

    Args:
        next_phrase: a phrase for the second at which it would start.
    """
    audio = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    words: list[Word] = []
    voices: list[tuple[str, float]] = []
    time = 0.0 if rng.random() < style.no_lead_in else rng.uniform(*style.lead_in)
    misses = 0
    while misses < style.misses and time < seconds:
        phrase = next_phrase(time)
        first = int(time * SAMPLE_RATE)
        after = first + len(phrase.audio)
        if after > len(audio) - style.tail * SAMPLE_RATE:
            misses += 1
            continue
        audio[first:after] = phrase.audio * amplitude(rng.uniform(*style.phrase_gain))
        time = first / SAMPLE_RATE
        words += [Word(word.text, time + word.start, time + word.end) for word in phrase.words]
        if not voices or voices[-1][0] != phrase.voice:
            voices.append((phrase.voice, time))
        time = after / SAMPLE_RATE + _draw_pause(style.pauses, rng)
    audio *= amplitude(rng.uniform(*style.clip_gain))
    return Clip(audio, words, voices)


def draw_clip(pool: Pool | Mixture, seconds: float, rng: Generator) -> Clip:
    """A training clip: phrases of the pool, of one voice in 60 % of the clips; 40 % are short."""
    numbers = pool.choose(rng, one_voice=rng.random() < 0.6)

    def draw(_: float) -> Phrase:
        phrase = pool[int(rng.choice(numbers))]
        return shortened(phrase, rng) if rng.random() < SHORT else phrase

    return assemble(draw, seconds, TRAINING_STYLE, rng)


def shortened(phrase: Phrase, rng: Generator) -> Phrase:
    """One to four words of a phrase, or a few more where no gap ends them earlier.

    A model that only hears long phrases guesses at the first words of each, until the words and
    the voice are known: people's first two digits had 16 % errors, the fourth 5 %.
    """
    words = phrase.words
    gaps = [after.start - word.end for word, after in pairwise(words)]
    bounds = [0, *(place for place, gap in enumerate(gaps, 1) if gap >= LEAST_CUT), len(words)]
    if len(bounds) < 3:
        return phrase
    begin = int(rng.choice(bounds[:-1]))
    least = begin + int(rng.integers(1, 5))
    end = next((bound for bound in bounds if bound >= least), bounds[-1])
    before = gaps[begin - 1] / 2 if begin else words[0].start
    behind = gaps[end - 1] / 2 if end < len(words) else MARGIN
    first = words[begin].start - min(MARGIN, before)
    audio = phrase.audio[
        int(first * SAMPLE_RATE) : int((words[end - 1].end + min(MARGIN, behind)) * SAMPLE_RATE)
    ]
    said = [Word(word.text, word.start - first, word.end - first) for word in words[begin:end]]
    return Phrase(faded(audio), said, phrase.voice)


def draw_scene(
    pool: Pool | Mixture, seconds: float, acoustics: Acoustics, noise: "Noise", rng: Generator
) -> Clip:
    """A training clip as a microphone hears it; now and then without any speech."""
    if rng.random() < acoustics.alone:
        level = SPEECH_LEVEL * amplitude(rng.uniform(*acoustics.level))
        audio = level * interference(round(seconds * SAMPLE_RATE), rng)
        return Clip(audio.astype(np.float32), [], [])
    clip = draw_clip(pool, seconds, rng)
    audio, words = clip.audio, clip.words
    if rng.random() < acoustics.careful:
        audio, words = prolong(audio, words, rng)
    if rng.random() < acoustics.hushed:
        audio = hush(audio, rng)
    if rng.random() < acoustics.room:
        audio = echo(audio, rng)
    if rng.random() < acoustics.babble:  # backwards, so that there is nothing to learn
        below = amplitude(-rng.uniform(*acoustics.babble_below))
        audio = audio + below * draw_clip(pool, seconds, rng).audio[::-1]
    if rng.random() < acoustics.interference:
        below = SPEECH_LEVEL * amplitude(-rng.uniform(*acoustics.interference_below))
        audio = audio + below * interference(len(audio), rng)
    if rng.random() < acoustics.noises:
        audio = noise.add(audio, acoustics.noise_below, rng)
    if words and rng.random() < acoustics.gate:
        audio, words = gate(audio, words, rng.random() < acoustics.evened, rng)
    if rng.random() < acoustics.lost:
        audio = lose(audio, words, acoustics.lost_words, rng)
    if rng.random() < acoustics.clipping:
        audio = clip_peaks(audio, rng)
    audio = audio * amplitude(rng.uniform(*acoustics.level))
    if rng.random() < acoustics.coarse:
        audio = coarse(audio)
    return replace(clip, audio=np.ascontiguousarray(audio, np.float32), words=words)


class Noise:
    """White and pink noise of unit variance, two minutes each."""

    def __init__(self, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        length = 120 * SAMPLE_RATE
        white = rng.standard_normal(length)
        spectrum = np.fft.rfft(rng.standard_normal(length))
        # 1/f in power; flat below 20 bins (a sixth of a hertz), where it would be a mere drift.
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
        pink = np.fft.irfft(spectrum, length)
        self._banks = [white.astype(np.float32), (pink / pink.std()).astype(np.float32)]

    def add(self, audio: NDArray[np.float32], below: Range, rng: Generator) -> NDArray[np.float32]:
        """``audio`` with each kind of noise in 60 % of the cases, ``below`` dB below speech."""
        for bank in self._banks:
            if rng.random() < 0.6:
                places = int(rng.integers(len(bank))) + np.arange(len(audio))
                level = np.float32(SPEECH_LEVEL) * amplitude(-rng.uniform(*below))
                audio = audio + level * bank[places % len(bank)]
        return audio


def _draw_pause(pauses: tuple[Pause, ...], rng: Generator) -> float:
    chosen = rng.choice(len(pauses), p=[pause.probability for pause in pauses])
    return float(rng.uniform(pauses[chosen].shortest, pauses[chosen].longest))
