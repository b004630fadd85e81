"""Words grouped into captions that can be read on a screen.

The limits are the customary ones of subtitling: two lines of 42 columns, at most 7 s.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from voxfast._sentences import ends_sentence, is_abbreviation
from voxfast.models.scripts import is_unspaced
from voxfast.timed import Word

COLUMNS = 42
LINES = 2
PAUSE_SECONDS = 0.8
MOST_SECONDS = 7.0
LEAST_SECONDS = 1.0
"""A caption stays this long on the screen if the next one leaves room for it."""
SHORTEST_SECONDS = 0.3
"""No caption is shorter: it takes in the next sentence, or the next one waits."""
_LONGEST_UNIT = 500
"""Characters that are held together at most, so that a stream without spaces is shown, too."""


@dataclass(frozen=True, slots=True)
class Caption:
    """Lines of text without spaces at their ends, shown from ``start`` to ``end`` seconds."""

    lines: tuple[str, ...]
    start: float
    end: float


def captions(words: Iterable[Word]) -> list[Caption]:
    """Group words into captions.

    A caption ends before a pause of more than 0.8 s, after a sentence, and where it would
    otherwise be longer than 7 s or than two lines of 42 columns (21 full-width characters).
    Captions start at least 0.3 s apart, do not overlap, and last at least 0.3 s: a shorter
    sentence shares the caption of the next one, and where the words' times leave no room,
    captions are late.
    """
    stream = CaptionStream()
    return [*stream.step(words), *stream.finish()]


class CaptionStream:
    """Groups words into captions while they come.

    Parity: for any split of the words, the captions of :meth:`step` and :meth:`finish` joined
    are those of :func:`captions`. The last caption is held back, because its end, and whether
    it takes another word, depend on what follows.
    """

    def __init__(self) -> None:
        self._word: Word | None = None  # may grow by what cannot be parted from it
        self._group: list[_Unit] = []  # of the caption that is not complete
        self._start = -math.inf  # of that caption
        self._clock = 0.0  # start of the latest word

    def step(self, words: Iterable[Word]) -> list[Caption]:
        """Take more words; return the captions that they complete."""
        found: list[Caption] = []
        for word in words:
            text = visible(word.text).rstrip()
            if not text:
                continue
            word = self._timed(replace(word, text=text))
            last = self._word
            if last is not None and _is_joined(last, word):
                self._word = replace(
                    word,
                    text=last.text + text,
                    start=last.start,
                    end=max(last.end, word.end),
                )
                continue
            found += self._close_word()
            self._word = word
        return found

    def finish(self) -> list[Caption]:
        """The captions that were held back."""
        found = self._close_word()
        if self._group:
            found.append(self._caption(math.inf))
            self._group = []
        return found

    def _timed(self, word: Word) -> Word:
        """A word with times that never go back and are numbers."""
        start = word.start if math.isfinite(word.start) else self._clock
        self._clock = max(start, self._clock)
        end = word.end if math.isfinite(word.end) else self._clock
        return replace(word, start=self._clock, end=max(end, self._clock))

    def _close_word(self) -> list[Caption]:
        """Put the open word into the caption; return what that completes."""
        if self._word is None:
            return []
        found = []
        for piece in _pieces(self._word):
            unit = _Unit.of(piece)
            if self._group and _begins_caption(self._group, unit):
                start = max(piece.start, self._start + SHORTEST_SECONDS)
                found.append(self._caption(start))
                self._group, self._start = [], start
            elif not self._group:
                self._start = piece.start
            self._group.append(unit)
        self._word = None
        return found

    def _caption(self, following: float) -> Caption:
        """The caption of the group, if the next one starts at ``following`` seconds."""
        end = max(unit.word.end for unit in self._group)
        end = min(max(end, self._start + LEAST_SECONDS), following)
        return Caption(_lines(self._group), self._start, end)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word between two places where a line may end, and its columns.

    ``indent`` of its ``width`` are leading space, which a line does not begin with.
    """

    word: Word
    width: int
    indent: int

    @classmethod
    def of(cls, word: Word) -> "_Unit":
        width = columns(word.text)
        return cls(word, width, width - columns(word.text.lstrip()))


def _begins_caption(group: Sequence[_Unit], unit: _Unit) -> bool:
    """Whether ``unit`` cannot join the words of a caption."""
    first, last = group[0].word, group[-1].word
    return (
        unit.word.start - last.end > PAUSE_SECONDS
        or unit.word.end - first.start > MOST_SECONDS
        or _first_line([*group, unit]) is None
        or (
            unit.word.start - first.start >= SHORTEST_SECONDS
            and ends_sentence("".join(u.word.text for u in group), unit.word.text)
        )
    )


def visible(text: str) -> str:
    """A text whose control characters and line separators are spaces."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def may_break(before: str, text: str) -> bool:
    """Whether a line may end between two words, both with some visible text."""
    if text[0].isspace():
        return True
    category = unicodedata.category(text[0])
    if category[0] == "M" or category in ("Pe", "Pf", "Po", "Lm"):
        return False
    if unicodedata.category(before[-1]) in ("Ps", "Pi"):
        return False
    return _is_unspaced(before[-1]) or _is_unspaced(text[0])


def _is_joined(last: Word, word: Word) -> bool:
    """Whether no line ends between two words: "3" and ".5", "Mr." and "Smith"."""
    length = len(last.text) + len(word.text)
    if not may_break(last.text, word.text):
        return length <= _LONGEST_UNIT
    return (
        is_abbreviation(last.text, word.text)
        and length <= COLUMNS
        and word.start - last.end <= PAUSE_SECONDS
    )


def _is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script without spaces, its wide punctuation included."""
    is_wide = unicodedata.east_asian_width(character) in ("W", "F")
    is_mark = unicodedata.category(character).startswith("P")
    return is_unspaced(character) or (is_wide and is_mark)


def _pieces(unit: Word) -> list[Word]:
    """A word that is wider than a line, cut into lines; time is shared out by length."""
    if columns(unit.text.strip()) <= COLUMNS:
        return [unit]
    parts, part = [], ""
    for character in unit.text:
        if columns((part + character).strip()) > COLUMNS:
            parts.append(part)
            part = ""
        part += character
    parts.append(part)
    step = (unit.end - unit.start) / len(parts)
    return [
        replace(unit, text=text, start=unit.start + i * step, end=unit.start + (i + 1) * step)
        for i, text in enumerate(parts)
    ]


def columns(text: str) -> int:
    """Width of a text on a screen: full-width characters take two columns, marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in ("W", "F")
        else 1
        for character in text
    )


def _first_line(units: Sequence[_Unit]) -> int | None:
    """How many units to put on the first of two lines of about the same width.

    All of them if one line takes them; None if two lines do not.
    """
    width = sum(unit.width for unit in units)
    if width - units[0].indent <= COLUMNS:
        return len(units)
    best, narrowest = None, COLUMNS
    first = -units[0].indent
    for i in range(1, len(units)):
        first += units[i - 1].width
        second = width - units[0].indent - first - units[i].indent
        if max(first, second) <= narrowest:
            best, narrowest = i, max(first, second)
    return best


def _lines(units: Sequence[_Unit]) -> tuple[str, ...]:
    """The text of a caption that is known to fit."""
    count = _first_line(units) or len(units)
    texts = [unit.word.text for unit in units]
    lines = ("".join(texts[:count]).strip(), "".join(texts[count:]).strip())
    return tuple(line for line in lines if line)
