"""The 30 languages of Qwen3-ASR: the names it is prompted with, and their codes."""

from typing import Final

from voxfast.errors import InvalidOptionError

__all__ = ["LANGUAGES", "has_word_spaces", "language_code", "language_name"]

# Names as the model writes them after "language ", with their codes: ISO 639-1, or 639-3
# where that has none (arXiv 2601.21337; the order is that of the model card).
LANGUAGES: Final = {
    "Chinese": "zh",
    "English": "en",
    "Cantonese": "yue",
    "Arabic": "ar",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Portuguese": "pt",
    "Indonesian": "id",
    "Italian": "it",
    "Korean": "ko",
    "Russian": "ru",
    "Thai": "th",
    "Vietnamese": "vi",
    "Japanese": "ja",
    "Turkish": "tr",
    "Hindi": "hi",
    "Malay": "ms",
    "Dutch": "nl",
    "Swedish": "sv",
    "Danish": "da",
    "Finnish": "fi",
    "Polish": "pl",
    "Czech": "cs",
    "Filipino": "fil",
    "Persian": "fa",
    "Greek": "el",
    "Hungarian": "hu",
    "Macedonian": "mk",
    "Romanian": "ro",
}

_WITHOUT_SPACES = frozenset({"Chinese", "Cantonese", "Japanese", "Thai"})

# What else people and their systems call some of them.
_ALIASES = {
    "cmn": "Chinese",
    "mandarin": "Chinese",
    "zh-yue": "Cantonese",
    "tl": "Filipino",
    "tagalog": "Filipino",
    "farsi": "Persian",
}
_NAMES = (
    {name.lower(): name for name in LANGUAGES}
    | {code: name for name, code in LANGUAGES.items()}
    | _ALIASES
)


def _find(code_or_name: str) -> str | None:
    """The name, or None; of a code with a region or script (pt-BR, zh_Hant) the language."""
    key = code_or_name.strip().lower().replace("_", "-")
    return _NAMES.get(key) or _NAMES.get(key.partition("-")[0])


def language_name(code_or_name: str) -> str:
    """The name that the model knows a language by: ``English`` for ``en``, ``EN-us``, ``english``.

    Raises:
        InvalidOptionError: if it is none of the model's languages.
    """
    name = _find(code_or_name)
    if name is None:
        known = ", ".join(f"{name} ({code})" for name, code in LANGUAGES.items())
        raise InvalidOptionError(
            f"language {code_or_name!r:.60} is none that Qwen3-ASR knows; choose one of: {known}"
        )
    return name


def language_code(code_or_name: str) -> str:
    """The code of a language: ``en`` for ``English``.

    Raises:
        InvalidOptionError: if it is none of the model's languages.
    """
    return LANGUAGES[language_name(code_or_name)]


def has_word_spaces(code_or_name: str) -> bool:
    """Whether a language is written with spaces between its words.

    True for names that are not in the list: the model writes the name itself when it detects
    the language, and a stream must not end over one that it was never said to know.
    """
    return _find(code_or_name) not in _WITHOUT_SPACES
