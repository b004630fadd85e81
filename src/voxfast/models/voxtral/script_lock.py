"""Holds Voxtral to the script of a language, by the tokens that it may write.

Voxtral finds the language itself and cannot be told one. But where a language has a script of its
own among those that the model knows, a stream can be kept from writing in any other.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import regex

from voxfast.errors import InvalidOptionError

__all__ = ["LANGUAGES", "ScriptLock", "held_language", "language_code", "script_lock"]

# The languages of Voxtral Realtime (model card of Voxtral-Mini-4B-Realtime-2602).
_SCRIPTS = {
    "ar": ("Arabic", ("Arabic",)),
    "hi": ("Hindi", ("Devanagari",)),
    "ja": ("Japanese", ("Han", "Hiragana", "Katakana")),
    "ko": ("Korean", ("Hangul",)),
    "ru": ("Russian", ("Cyrillic",)),
    "zh": ("Chinese", ("Han", "Bopomofo")),
}
_LATIN = {
    "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian",
    "nl": "Dutch", "pt": "Portuguese",
}  # fmt: skip
LANGUAGES = tuple(sorted([*_SCRIPTS, *_LATIN]))
_CODES = {name.lower(): code for code, (name, _) in _SCRIPTS.items()}
_CODES |= {name.lower(): code for code, name in _LATIN.items()}
_ALWAYS = ("Common", "Inherited")  # digits, punctuation, spaces, combining marks


class ScriptLock(NamedTuple):
    """What a stream may write.

    Attributes:
        language: its English name.
        mask: [vocab_size] of the model's dtype, to be added to logits: 0 or −inf.
    """

    language: str
    mask: mx.array


def script_lock(
    code: str,
    latin: bool,
    piece: Callable[[int], bytes | None],
    known: int,
    vocab_size: int,
    dtype: mx.Dtype,
) -> ScriptLock:
    """The lock for a language.

    Allowed are special tokens, digits, punctuation, the language's scripts, and tokens that hold
    a part of one of their characters.

    Args:
        code: of :func:`held_language`.
        latin: allow Latin letters, too, as in names of brands.
        piece: the bytes of a token; None for a special one.
        known: tokens that the tokenizer has; those up to ``vocab_size`` mean nothing.
    """
    name, scripts = _SCRIPTS[code]
    allowed = (*scripts, "Latin") if latin else scripts
    mask = np.full(vocab_size, -np.inf, np.float32)
    for token in range(known):
        part = piece(token)
        if part is None or _is_allowed(part, allowed):
            mask[token] = 0
    return ScriptLock(name, mx.array(mask).astype(dtype))


def language_code(language: str) -> str | None:
    """The code of a language that Voxtral knows, by a code (ja, ja-JP) or its name; else None."""
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    code = _CODES.get(code, code)
    return code if code in LANGUAGES else None


def held_language(language: str) -> str:
    """The code of a language that Voxtral can be held to, by a code (ja, ja-JP) or its name.

    Raises:
        InvalidOptionError: for another language, or one that shares its script with others.
    """
    code = language_code(language)
    if code in _SCRIPTS:
        return code
    known = ", ".join(_SCRIPTS)
    if code is not None:
        raise InvalidOptionError(
            f"Voxtral finds the language itself. It can be held to a script, but "
            f"{_LATIN[code]} shares the Latin one with others; leave language={language!r} out. "
            f"Languages with a script of their own: {known}"
        )
    raise InvalidOptionError(
        f"Voxtral finds the language itself, and can be held to the script of {known}; "
        f"got language={language!r:.40}"
    )


def _is_allowed(piece: bytes, scripts: tuple[str, ...]) -> bool:
    text, rest = _whole_characters(piece)
    if text and _pattern(*_ALWAYS, *scripts).fullmatch(text) is None:
        return False
    return not rest or _may_become(rest, scripts)


def _whole_characters(piece: bytes) -> tuple[str, bytes]:
    """The characters of a piece, and the beginning of one that its end cuts off.

    What its beginning cuts off is left out: it only continues what was allowed to begin.
    """
    first = next((i for i, byte in enumerate(piece) if byte & 0xC0 != 0x80), len(piece))
    piece = piece[first:]
    for cut in range(max(0, len(piece) - 3), len(piece)):
        if piece[cut] >= 0xC0 and len(piece) - cut < _length(piece[cut]):
            return piece[:cut].decode(errors="replace"), piece[cut:]
    return piece.decode(errors="replace"), b""


def _length(lead: int) -> int:
    """Bytes of a character by its first one."""
    return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@cache
def _may_become(beginning: bytes, scripts: tuple[str, ...]) -> bool:
    """Whether a character of the scripts begins with these bytes."""
    missing = _length(beginning[0]) - len(beginning)
    code = beginning[0] & (0x3F >> (_length(beginning[0]) - 1))
    for byte in beginning[1:]:
        code = code << 6 | byte & 0x3F
    codes = range(code << 6 * missing, min((code + 1) << 6 * missing, 0x110000))
    text = "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
    return _pattern(*scripts).search(text) is not None


@cache
def _pattern(*scripts: str) -> "regex.Pattern[str]":
    """Any characters of these scripts."""
    return regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]+")
