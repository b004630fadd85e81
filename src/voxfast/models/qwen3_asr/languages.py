"""The 30 languages of Qwen3-ASR: the names it is prompted with, and their codes."""

import re
from difflib import get_close_matches
from typing import Final

from voxfast.errors import InvalidOptionError
from voxfast.models.family import is_automatic

__all__ = [
    "LANGUAGES",
    "has_word_spaces",
    "language_name",
    "requested_language",
    "written_language",
]

# Names as the model writes them after "language ", in the order of the model card (arXiv
# 2601.21337). Behind each the code that we report (ISO 639-1, or 639-3 where that has none),
# then what else it is known by: 639-2 (both for terminology and for bibliographies), 639-3 of
# the standard form, other names.
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
    """The name, or None; of a code with a region or script (pt-BR, zh_Hant) the language."""
    key = _key(code_or_name)
    tag = _TAG.fullmatch(key)
    return _NAMES.get(key) or (_NAMES.get(tag[1]) if tag else None)


def _key(code_or_name: str) -> str:
    return code_or_name.strip().lower().replace("_", "-")


def requested_language(code_or_name: str | None) -> str | None:
    """The name of the language that a user asks for; None if it :func:`is_automatic`.

    Raises:
        InvalidOptionError: if it is none of the model's languages.
    """
    if code_or_name is None or is_automatic(code_or_name):
        return None
    return language_name(code_or_name)


def language_name(code_or_name: str) -> str:
    """The name that the model knows a language by: ``English`` for ``en``, ``EN-us``, ``english``.

    Raises:
        InvalidOptionError: if it is none of the model's languages.
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
    """Languages that may be meant: whose name, or code, begins alike and is almost the same."""
    key = _key(code_or_name)[:20]
    alike = [name for name in _NAMES if name[:1] == key[:1]]
    names = dict.fromkeys(_NAMES[found] for found in get_close_matches(key, alike, 3, 0.5))
    meant = " or ".join(f"{name} ({LANGUAGES[name]})" for name in names)
    return f" (is {meant} meant?)" if meant else ""


def written_language(header: str) -> str | None:
    """The language in what the model writes before ``<asr_text>``: ``language English``.

    As Qwen's own parser reads it: the first line that begins with ``language`` counts, in any
    case. A language that is not in the list is returned as it was written, with a capital.

    Returns:
        None if it names no language, or ``None``.
    """
    for line in header.splitlines():
        word, _, name = line.strip().partition(" ")
        if word.lower() == "language":
            name = name.strip()
            return None if name.lower() in ("", "none") else _find(name) or name.capitalize()
    return None


def has_word_spaces(code_or_name: str) -> bool:
    """Whether a language is written with spaces between its words.

    True for names that are not in the list: the model writes the name itself when it detects
    the language, and an unlisted one must not abort the stream.
    """
    return _find(code_or_name) not in _WITHOUT_SPACES
