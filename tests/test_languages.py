"""The names and codes of Qwen3-ASR's languages."""

import pytest

from voxfast.errors import InvalidOptionError
from voxfast.models.languages import LANGUAGES, has_word_spaces, language_code, language_name


def test_thirty_languages_with_a_code_each() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES.values())) == 30


@pytest.mark.parametrize(("name", "code"), LANGUAGES.items())
def test_name_and_code_are_two_ways_to_say_one_thing(name: str, code: str) -> None:
    for spelling in (name, name.upper(), name.lower(), code, code.upper(), f" {name} "):
        assert language_name(spelling) == name
        assert language_code(spelling) == code


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("en-US", "English"),
        ("pt_BR", "Portuguese"),
        ("zh-Hant-TW", "Chinese"),
        ("zh-yue", "Cantonese"),
        ("yue-Hant-HK", "Cantonese"),
        ("es-419", "Spanish"),
        ("Mandarin", "Chinese"),
        ("farsi", "Persian"),
        ("tl", "Filipino"),
    ],
)
def test_regions_and_other_names(spelling: str, name: str) -> None:
    assert language_name(spelling) == name


@pytest.mark.parametrize(
    "unknown", ["", " ", "xx", "Klingon", "-en", "englishh", "None", "e" * 999]
)
def test_unknown_languages_are_told_the_known_ones(unknown: str) -> None:
    for function in (language_name, language_code):
        with pytest.raises(InvalidOptionError, match=r"English \(en\), .*Romanian \(ro\)") as error:
            function(unknown)
        assert repr(unknown)[:50] in str(error.value)
        assert len(str(error.value)) < 800


def test_languages_without_spaces_between_words() -> None:
    without = {name for name in LANGUAGES if not has_word_spaces(name)}
    assert without == {"Chinese", "Cantonese", "Japanese", "Thai"}
    assert not has_word_spaces("zh-CN")
    assert has_word_spaces("ko")
    assert has_word_spaces("Klingon")  # never known, so nothing says that it has none
