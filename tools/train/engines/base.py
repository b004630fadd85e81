"""What every speech synthesiser has in common: words in, samples and word starts out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from ..speech import SAMPLE_RATE

__all__ = [
    "COMMAS",
    "FLUENT",
    "ISOLATED",
    "SLOW",
    "STYLES",
    "Engine",
    "Speaker",
    "Style",
    "Utterance",
    "onnx_session",
    "played_at",
    "word_starts",
]

AHEAD = 3.0  # frames
SPEAKER_SEED = 20  # of everything that belongs to a pseudo-speaker rather than to a phrase


class Style(NamedTuple):
    """How a phrase is spoken.

    Attributes:
        separator: what stands between two words of the text.
        tempo: slowest and fastest speed, 1 being the engine's own.
        apart: the words are to be cut out, and joined again with random gaps.
    """

    name: str
    separator: str
    tempo: tuple[float, float]
    apart: bool = False

    def draw_tempo(self, rng: Generator) -> float:
        return float(rng.uniform(*self.tempo))


FLUENT = Style("fluent", " ", (0.75, 1.3))
COMMAS = Style("commas", ", ", (0.75, 1.3))
ISOLATED = Style("isolated", ". ", (0.75, 1.3), apart=True)
SLOW = Style("slow", ". ", (0.5, 0.85), apart=True)
STYLES = {style.name: style for style in (FLUENT, COMMAS, ISOLATED, SLOW)}


class Speaker(NamedTuple):
    """A pseudo-speaker of an engine: what makes its voice follows from its number."""

    number: int

    def traits(self) -> Generator:
        """Numbers to draw the voice from, the same ones every time."""
        return np.random.default_rng((SPEAKER_SEED, self.number))


@dataclass(frozen=True)
class Utterance:
    """What an engine said.

    Attributes:
        audio: [N] float32 at 16 kHz.
        starts: the second at which each word starts; empty where the engine does not know.
        voice: the engine's voice, with the engine's name.
    """

    audio: NDArray[np.float32]
    starts: list[float]
    voice: str


class Engine(Protocol):
    """A synthesiser.

    Attributes:
        packages: distributions (of Python or of the system) whose versions a pool notes.
        pauses: whether it pauses at a full stop within a text; otherwise words that are to stand
            apart are said one by one.
    """

    packages: tuple[str, ...]
    pauses: bool

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        """Says ``words``."""
        ...


def played_at(
    audio: NDArray[np.float32], rate: float, factor: float, starts: Sequence[float]
) -> tuple[NDArray[np.float32], list[float]]:
    """``audio`` of ``rate`` Hz at 16 kHz, played ``factor`` times as fast, and its ``starts``.

    Pitch and formants rise together, as from a smaller speaker.
    """
    resampled = soxr.resample(audio.astype(np.float32), rate * factor, SAMPLE_RATE, quality="HQ")
    return resampled, [start / factor for start in starts]


def draw_size(traits: Generator, low: float = 0.75, high: float = 1.25) -> float:
    """How much higher than the engine's voice a pseudo-speaker is; a third of them are not."""
    if traits.random() < 1 / 3:
        return 1.0
    return float(np.exp(traits.uniform(np.log(low), np.log(high))))


def onnx_session(path: str | Path, durations: str) -> Any:
    """A session on one thread whose last output is the inner tensor ``durations``."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(durations))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def word_starts(
    symbols: Sequence[str], durations: NDArray[np.floating[Any]], frame: float
) -> list[float]:
    """Seconds at which words start, from the durations of their phonemes in Kokoro or hibari.

    Speech runs three frames ahead of the durations, and half of a space belongs to the word
    behind it, as in the time stamps of Kokoro's own pipeline (``join_timestamps``). Without
    that, an /s/ begins 60 to 130 ms before its word.

    Args:
        symbols: phonemes; a space separates words, punctuation is silent.
        durations: [len(symbols)] in frames of ``frame`` seconds.
    """
    times = np.concatenate(([0.0], np.cumsum(durations)[:-1]))
    starts: list[float] = []
    between, space = True, 0.0
    for symbol, time, duration in zip(symbols, times.tolist(), durations.tolist(), strict=True):
        if symbol == " ":
            between, space = True, duration
        elif between and symbol not in "_,.":
            starts.append(max(0.0, time - AHEAD - space / 2) * frame)
            between = False
    return starts
