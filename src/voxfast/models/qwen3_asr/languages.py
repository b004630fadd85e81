"""The 30 languages of Qwen3-ASR: names in the prompt, and codes."""

import re
from difflib import get_close_matches
from typing import Final

from voxfast.errors import InvalidOptionError
from voxfast.models.family import is_automatic

__all__ = [
    "LANGUAGES",
    "has_word_spaces",
    "language_code",
    "language_name",
    "requested_language",
    "written_language",
]

# Names as the model writes them after "language ", in the order of the model card (arXiv
# 2601.21337). For each the reported code (ISO 639-1, or else 639-3), then its aliases: 639-2
# (terminological and bibliographic), 639-3 of the standard form, other names.
_KNOWN_BY: Final = {
    "Chinese": "zh zho chi cmn mandarin",
    "English": "en eng",
    "Cantonese": "yue zh-yue",
    "Arabic": "ar ara arb",
    "German": "de deu ger",
    "French": "fr fra fre",
    "Spanish": "es spa castilian",
    "Portuguese": "pt por",
    "Indonesian": "id ind",
    "Italian": "it ita",
    "Korean": "ko kor",
    "Russian": "ru rus",
    "Thai": "th tha",
    "Vietnamese": "vi vie",
    "Japanese": "ja jpn",
    "Turkish": "tr tur",
    "Hindi": "hi hin",
    "Malay": "ms msa may zsm",
    "Dutch": "nl nld dut flemish",
    "Swedish": "sv swe",
    "Danish": "da dan",
    "Finnish": "fi fin",
    "Polish": "pl pol",
    "Czech": "cs ces cze",
    "Filipino": "fil tl tgl tagalog pilipino",
    "Persian": "fa fas per pes farsi",
    "Greek": "el ell gre",
    "Hungarian": "hu hun",
    "Macedonian": "mk mkd mac",
    "Romanian": "ro ron rum moldavian",
}
LANGUAGES: Final = {name: known.split()[0] for name, known in _KNOWN_BY.items()}
_NAMES = {name.lower(): name for name in LANGUAGES} | {
    alias: name for name, known in _KNOWN_BY.items() for alias in known.split()
}
_WITHOUT_SPACES = frozenset({"Chinese", "Cantonese", "Japanese", "Thai"})
# A tag of BCP 47, also as locales write it: pt-BR, zh_Hant_TW, en_US.UTF-8.
_TAG = re.compile(r"([a-z]{2,3}(-yue)?)(-[a-z0-9]{1,8})*([.@].*)?")


def _find(code_or_name: str) -> str | None:
    """The name, or None; regions and scripts in a code are ignored (pt-BR, zh_Hant)."""
    key = _key(code_or_name)
    tag = _TAG.fullmatch(key)
    return _NAMES.get(key) or (_NAMES.get(tag[1]) if tag else None)


def _key(code_or_name: str) -> str:
    return code_or_name.strip().lower().replace("_", "-")


def requested_language(code_or_name: str | None) -> str | None:
    """The name of a requested language; None if it :func:`is_automatic`.

    Raises:
        InvalidOptionError: if the model does not know the language.
    """
    if code_or_name is None or is_automatic(code_or_name):
        return None
    return language_name(code_or_name)


def language_code(code_or_name: str) -> str | None:
    """The code of a language: ``en`` for ``English``; None for one that the model does not know."""
    return LANGUAGES.get(_find(code_or_name) or "")


def language_name(code_or_name: str) -> str:
    """The model's name of a language: ``English`` for ``en``, ``EN-us``, ``english``.

    Raises:
        InvalidOptionError: if the model does not know the language.
    """
    name = _find(code_or_name)
    if name is None:
        known = ", ".join(f"{name} ({code})" for name, code in LANGUAGES.items())
        raise InvalidOptionError(
            f"language {code_or_name!r:.60} is none that Qwen3-ASR knows{_near(code_or_name)}; "
            f"choose one of: {known}"
        )
    return name


def _near(code_or_name: str) -> str:
    """Suggestions: languages whose name or code is similar and has the same first letter."""
    key = _key(code_or_name)[:20]
    alike = [name for name in _NAMES if name[:1] == key[:1]]
    names = dict.fromkeys(_NAMES[found] for found in get_close_matches(key, alike, 3, 0.5))
    meant = " or ".join(f"{name} ({LANGUAGES[name]})" for name in names)
    return f" (is {meant} meant?)" if meant else ""


def written_language(header: str) -> str | None:
    """The language in the header that the model writes before ``<asr_text>``.

    Like Qwen's own parser: the first line that begins with ``language`` counts, in any case. An
    unlisted language is returned as written, capitalised.

    Returns:
        None if the header names no language, or ``None``.
    """
    for line in header.splitlines():
        word, _, name = line.strip().partition(" ")
        if word.lower() == "language":
            name = name.strip()
            return None if name.lower() in ("", "none") else _find(name) or name.capitalize()
    return None


def has_word_spaces(code_or_name: str) -> bool:
    """Whether a language is written with spaces between words.

    True for unlisted names: the model itself writes the name of a detected language, and an
    unlisted one must not abort the stream.
    """
    return _find(code_or_name) not in _WITHOUT_SPACES
