"""Where words begin and end in text that comes as pieces of bytes."""

import unicodedata
from functools import lru_cache

from voxfast.models.scripts import is_unspaced

__all__ = ["begins_word", "ends_word"]


@lru_cache(1 << 14)
def begins_word(tail: bytes, piece: bytes) -> bool:
    """Whether a piece begins a word behind a text that ends with ``tail``."""
    first = _first(piece)
    return first.isspace() or _is_unspaced(first) or not (tail and _is_inside(_last(tail)))


@lru_cache(1 << 14)
def ends_word(tail: bytes, piece: bytes | None) -> bool:
    """Whether a word ends behind ``tail`` if this piece follows; None: a special token."""
    return piece is None or not _is_inside(_first(piece)) or _is_unspaced(_last(tail))


def _is_inside(character: str) -> bool:
    """Whether a character may stand within a word; "" is a part of one."""
    is_letter = character.isalnum() or unicodedata.category(character or "x")[0] == "M"
    return not character or (is_letter and not _is_unspaced(character))


def _is_unspaced(character: str) -> bool:
    return bool(character) and is_unspaced(character)


@lru_cache(1 << 14)
def _first(piece: bytes) -> str:
    """The first character of a piece; "" if its bytes are not all there."""
    return next(filter(None, (_decoded(piece[:length]) for length in range(1, 5))), "")


@lru_cache(1 << 14)
def _last(tail: bytes) -> str:
    """The last character; "" if its bytes are not all there."""
    return next(filter(None, (_decoded(tail[-length:]) for length in range(1, 5))), "")


def _decoded(part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return ""
