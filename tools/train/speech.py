"""Words with their times, and phrases of them at 16 kHz."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEAK", "SAMPLE_RATE", "Phrase", "Word"]

SAMPLE_RATE = 16000
PEAK = 0.6  # of a phrase


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
