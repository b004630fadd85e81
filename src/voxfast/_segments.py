"""Where a segment begins: after a sentence, and after a pause."""

from collections.abc import Iterable

from voxfast._captions import PAUSE_SECONDS, may_break, visible
from voxfast._sentences import ends_sentence
from voxfast.timed import Word

__all__ = ["SegmentBreaks", "SegmentStream", "grouped"]

_REMEMBERED = 200
"""Characters of a segment from which the end of a sentence is told."""


class SegmentBreaks:
    """Finds the words that begin a segment, while they come."""

    def __init__(self) -> None:
        self._said = ""  # in this segment
        self._space = ""  # that has come before a word
        self._end = 0.0  # of the last word

    @property
    def is_open(self) -> bool:
        """Whether the segment has a word."""
        return bool(self._said)

    def step(self, word: Word) -> tuple[bool, str] | None:
        """Take the next word.

        Returns:
            Whether a segment begins with it, and its text as it is shown, with the white space
            that came alone before it; None if it is white space alone.
        """
        text, self._space = self._space + visible(word.text), ""
        if not text.strip():
            self._space = text
            return None
        begins = not self._said or (
            may_break(self._said, text)
            and (word.start - self._end > PAUSE_SECONDS or ends_sentence(self._said, text))
        )
        self._end = word.end
        self._said = text if begins else (self._said + text)[-_REMEMBERED:]
        return begins, text

    def close(self) -> None:
        """End the open segment: the next word begins another one."""
        self._said = ""


class SegmentStream:
    """Groups words into segments while they come.

    Words that are white space alone go with the word behind them, or with the last segment.
    """

    def __init__(self) -> None:
        self._breaks = SegmentBreaks()
        self._words: list[Word] = []  # of the open segment
        self._waiting: list[Word] = []  # white space behind it

    def step(self, word: Word) -> tuple[Word, ...]:
        """Take the next word; return the segment that ends before it, if one does."""
        ended: tuple[Word, ...] = ()
        self._waiting.append(word)
        shown = self._breaks.step(word)
        if shown is not None:
            if shown[0]:
                ended, self._words = tuple(self._words), []
            self._words += self._waiting
            self._waiting = []
        return ended

    def close(self) -> tuple[Word, ...]:
        """End the open segment, and return it, if there is one."""
        self._breaks.close()
        if not self._words:
            return ()
        ended = (*self._words, *self._waiting)
        self._words, self._waiting = [], []
        return ended


def grouped(words: Iterable[Word]) -> list[tuple[Word, ...]]:
    """Words by segment."""
    stream = SegmentStream()
    ended = [*map(stream.step, words), stream.close()]
    return [segment for segment in ended if segment]
