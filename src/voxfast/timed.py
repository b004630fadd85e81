"""Results of a stream: tokens, words with times, transcripts."""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Segment", "Token", "Transcript", "Word"]


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token.

    Attributes:
        id: index in the model's vocabulary.
        probability: of the model, 0 to 1.
        position: its audio token (80 ms). Voxtral: its index, since there is one token per
            position. Qwen3-ASR: the attended frame, counted from the start of the buffer.
        replaced: the probability of the token that the model would have written here, where a
            vocabulary has replaced it; else None.
    """

    id: int
    probability: float
    position: int
    replaced: float | None = None

    @property
    def certainty(self) -> float:
        """How sure the model is that there is text, whichever was written."""
        return self.probability if self.replaced is None else self.replaced


@dataclass(frozen=True, slots=True)
class Word:
    """A committed word: it never changes again.

    Attributes:
        text: the word as the model wrote it, with a leading space if the language uses spaces:
            the concatenated texts of all words are the transcript.
        start, end: seconds of the real audio, silence included; ``start <= end``.
        probability: the product of the probabilities of its tokens, 0 to 1.
    """

    text: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive words: a sentence, or what was said up to a pause.

    Attributes:
        words: in order, at least one.
        language: that of the transcript, if any.
    """

    words: tuple[Word, ...]
    language: str | None = None

    @property
    def text(self) -> str:
        """The concatenated words, without outer white space."""
        return join(self.words)

    @property
    def start(self) -> float:
        """Second at which the first word starts."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Second at which the last of the words ends."""
        return max(word.end for word in self.words)

    @property
    def probability(self) -> float | None:
        """The mean of the words' probabilities; None if one is unknown."""
        known = [word.probability for word in self.words if word.probability is not None]
        return sum(known) / len(known) if len(known) == len(self.words) else None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The result of one stream.

    Attributes:
        words: committed words in order.
        duration: seconds of received audio.
        model: name of the model.
        language: the requested or detected language, if any.
        skipped: seconds of it that ``skip_silence`` kept from the model.
    """

    words: tuple[Word, ...] = field(default_factory=tuple)
    duration: float = 0.0
    model: str = ""
    language: str | None = None
    skipped: float = 0.0

    @property
    def text(self) -> str:
        """The concatenated words, without outer white space."""
        return join(self.words)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The words by sentence, or by what was said up to a pause of more than 0.8 s."""
        from voxfast._segments import grouped

        return tuple(Segment(words, self.language) for words in grouped(self.words))


def join(words: Iterable[Word]) -> str:
    """The text of consecutive words, without outer white space."""
    return "".join(word.text for word in words).strip()
