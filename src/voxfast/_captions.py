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
_CLOSERS = frozenset("\"'”’»›)]}」』）】》〉")
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
    groups: list[list[Word]] = []
    for unit in _units(words):
        if not groups or _begins_caption(groups[-1], unit):
            groups.append([])
        groups[-1].append(unit)
    found = [
        Caption(_wrap(group) or (), group[0].start, max(word.end for word in group))
        for group in groups
    ]
    return _spread(found)


def _begins_caption(group: Sequence[Word], unit: Word) -> bool:
    """Whether ``unit`` cannot join the words of a caption."""
    last = group[-1]
    return (
        unit.start - last.end > PAUSE_SECONDS
        or last.text.rstrip("".join(_CLOSERS))[-1:] in _SENTENCE_ENDS
        or unit.end - group[0].start > MOST_SECONDS
        or _wrap([*group, unit]) is None
    )


def _spread(found: list[Caption]) -> list[Caption]:
    """Give short captions time on the screen, and let none run into the next."""
    spread = []
    for i, caption in enumerate(found):
        limit = found[i + 1].start if i + 1 < len(found) else math.inf
        end = min(max(caption.end, caption.start + LEAST_SECONDS), limit)
        spread.append(replace(caption, end=max(end, caption.start + 0.001)))
    return spread


def _units(words: Iterable[Word]) -> list[Word]:
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
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in ("W", "F")
        else 1
        for character in text
    )


def _wrap(units: Sequence[Word]) -> tuple[str, ...] | None:
    """One line or two of about the same width; None if that is not enough."""
    texts = [unit.text for unit in units]
    whole = "".join(texts).strip()
    if columns(whole) <= COLUMNS:
        return (whole,)
    splits = [
        ("".join(texts[:i]).strip(), "".join(texts[i:]).strip()) for i in range(1, len(texts))
    ]
    fitting = [split for split in splits if max(map(columns, split)) <= COLUMNS]
    return min(fitting, key=lambda split: max(map(columns, split)), default=None)
