"""What a stream says: tokens, words with times, and transcripts made of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Token", "Transcript", "Word"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that a model wrote.

    Attributes:
        id: in the model's vocabulary.
        probability: that the model gave it, 0 to 1.
        position: the audio token (80 ms) that it belongs to. Voxtral writes one token per
            position, so the first is 0; in Qwen3-ASR it is the attended frame, counted from
            the start of the buffer.
    """

    id: int
    probability: float
    position: int


@dataclass(frozen=True, slots=True)
class Word:
    """A committed word: it never changes again.

    Attributes:
        text: the word as the model wrote it, with its own leading space where the language
            uses spaces, so that joining the texts of all words gives the transcript.
        start, end: seconds of the real audio, silences included; ``start <= end``.
        probability: the product of the model's probabilities of the word's tokens, 0 to 1.
    """

    text: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What one stream said.

    Attributes:
        words: committed words in order.
        duration: seconds of audio that were heard.
        model: name of the model.
        language: the language that was asked for or detected, if any.
    """

    words: tuple[Word, ...] = field(default_factory=tuple)
    duration: float = 0.0
    model: str = ""
    language: str | None = None

    @property
    def text(self) -> str:
        """The words joined, without space at either end."""
        return join(self.words)


def join(words: Iterable[Word]) -> str:
    """The text of consecutive words, without space at either end."""
    return "".join(word.text for word in words).strip()
