"""Words grouped into captions that can be read on a screen.

The limits are the customary ones of subtitling: two lines of 42 columns, at most 7 s.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from voxfast.timed import Word

COLUMNS = 42
LINES = 2
PAUSE_SECONDS = 0.8
MOST_SECONDS = 7.0
LEAST_SECONDS = 1.0
"""A caption stays this long on the screen if the next one leaves room for it."""

_SENTENCE_ENDS = frozenset(".!?…。！？｡؟।॥።")
_CLOSERS = "\"'”’»›)]}」』）】》〉"
# Scripts that write no spaces between words, by the first word of their Unicode names.
_UNSPACED = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "IDEOGRAPHIC", "FULLWIDTH"}
)


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
    Captions do not overlap, and each lasts at least a millisecond.
    """
    groups: list[list[_Unit]] = []
    for word in _words_between_breaks(words):
        unit = _Unit.of(word)
        if not groups or _begins_caption(groups[-1], unit):
            groups.append([])
        groups[-1].append(unit)
    found = [
        Caption(_lines(group), group[0].word.start, max(unit.word.end for unit in group))
        for group in groups
    ]
    return _spread(found)


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
    last = group[-1].word
    return (
        unit.word.start - last.end > PAUSE_SECONDS
        or last.text.rstrip(_CLOSERS)[-1:] in _SENTENCE_ENDS
        or unit.word.end - group[0].word.start > MOST_SECONDS
        or _first_line([*group, unit]) is None
    )


def _spread(found: list[Caption]) -> list[Caption]:
    """Give short captions time on the screen, and let none run into the next."""
    spread = []
    for i, caption in enumerate(found):
        limit = found[i + 1].start if i + 1 < len(found) else math.inf
        end = min(max(caption.end, caption.start + LEAST_SECONDS), limit)
        spread.append(replace(caption, end=max(end, caption.start + 0.001)))
    return spread


def _words_between_breaks(words: Iterable[Word]) -> list[Word]:
    """Words joined where no line may break between them, without control characters."""
    units: list[Word] = []
    for word in words:
        text = "".join(
            " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in word.text
        )
        if not text.strip():
            continue
        text = text.rstrip()
        if units and not _may_break(units[-1].text, text):
            last = units.pop()
            word = replace(
                word, text=last.text + text, start=last.start, end=max(last.end, word.end)
            )
        else:
            word = replace(word, text=text)
        units.append(word)
    return [piece for unit in units for piece in _pieces(unit)]


def _may_break(before: str, text: str) -> bool:
    """Whether a line may end between two words."""
    if text[0].isspace():
        return True
    category = unicodedata.category(text[0])
    if category[0] == "M" or category in ("Pe", "Pf", "Po", "Lm"):
        return False
    if unicodedata.category(before[-1]) in ("Ps", "Pi"):
        return False
    return _is_unspaced(before[-1]) or _is_unspaced(text[0])


def _is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script without spaces between words."""
    return unicodedata.name(character, "").partition(" ")[0] in _UNSPACED


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
