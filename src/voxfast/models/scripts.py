"""Splitting text into words, including scripts without spaces."""

import unicodedata

__all__ = ["is_unspaced", "split_words"]

# Scripts without spaces: every character is a word.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # Han iteration marks
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x20000, 0x3FFFF),
)


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script without spaces."""
    code = ord(character)
    return any(first <= code <= last for first, last in _UNSPACED)


def _is_opening(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")


def _joins_previous(character: str) -> bool:
    """Whether a character is a mark or closing punctuation, part of the word before it."""
    return unicodedata.category(character)[0] in "MP" and not _is_opening(character)


def split_words(text: str) -> list[str]:
    """Split a text into words; concatenated, they are the text.

    A word includes the space before it. In scripts without spaces, every character is a word,
    with its marks and adjacent punctuation.
    """
    words: list[str] = []
    current = ""
    for character in text:
        if not current.strip() or _joins_previous(character):
            starts = False
        elif character.isspace():
            starts = True
        elif _is_opening(current[-1]):
            starts = False
        else:
            starts = is_unspaced(character) or any(map(is_unspaced, current))
        if starts:
            words.append(current)
            current = ""
        current += character
    return [*words, current] if current else words
