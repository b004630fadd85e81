"""Words with their times, and phrases of them at 16 kHz."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FADE", "PEAK", "SAMPLE_RATE", "Phrase", "Word", "faded"]

SAMPLE_RATE = 16000
PEAK = 0.6  # of a phrase
FADE = 80  # samples at the ends of a word that was cut out


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
        words: in order, in seconds of ``audio``; none where the speech is of other words than
            those of the vocabulary.
        voice: who speaks.
    """

    audio: NDArray[np.float32]
    words: list[Word]
    voice: str

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


def faded(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of [N] samples that fades in and out over 5 ms, or over all of it if it is shorter."""
    audio = audio.copy()
    ramp = np.linspace(0, 1, min(FADE, len(audio)), dtype=np.float32)
    audio[: len(ramp)] *= ramp
    audio[len(audio) - len(ramp) :] *= ramp[::-1]
    return audio
