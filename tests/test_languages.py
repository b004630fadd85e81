"""The names and codes of Qwen3-ASR's languages."""

import pycountry
import pytest

from voxfast.errors import InvalidOptionError
from voxfast.models.family import is_automatic
from voxfast.models.qwen3_asr.languages import (
    LANGUAGES,
    has_word_spaces,
    language_code,
    language_name,
    requested_language,
    written_language,
)


def test_thirty_languages_with_a_code_each() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES.values())) == 30


@pytest.mark.parametrize(("name", "code"), LANGUAGES.items())
def test_name_and_code_are_two_ways_to_say_one_thing(name: str, code: str) -> None:
    for spelling in (name, name.upper(), name.lower(), code, code.upper(), f" {name} "):
        assert language_name(spelling) == name
        assert language_code(spelling) == code


@pytest.mark.parametrize(("name", "code"), LANGUAGES.items())
def test_every_code_of_iso_639_names_its_language(name: str, code: str) -> None:
    key = "alpha_2" if len(code) == 2 else "alpha_3"
    entry = pycountry.languages.get(**{key: code})
    codes = {code, entry.alpha_3, getattr(entry, "bibliographic", code)}
    assert {"de", "fr", "zh", "ro"}.isdisjoint([code]) or len(codes) == 3
    for spelling in codes:
        for region in ("", "-XX", "_419", "-Latn-XX", "_XX.UTF-8", "_XX@euro"):
            for cased in (spelling, spelling.upper(), spelling.title()):
                assert requested_language(cased + region) == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("cmn-Hans-CN", "Chinese"),
        ("arb", "Arabic"),
        ("zsm", "Malay"),
        ("pes", "Persian"),
        ("zh_yue_HK", "Cantonese"),
        ("en_US.UTF-8", "English"),
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
    "unknown",
    ["", " ", "xx", "Klingon", "-en", "en-", "en--us", "enx-us", "englishh", "None", "e" * 999],
)
def test_unknown_languages_are_told_the_known_ones(unknown: str) -> None:
    with pytest.raises(InvalidOptionError, match=r"English \(en\), .*Romanian \(ro\)") as error:
        language_name(unknown)
    assert repr(unknown)[:50] in str(error.value)
    assert len(str(error.value)) < 800


@pytest.mark.parametrize(
    ("unknown", "near"),
    [
        ("englsh", "English (en)"),
        ("Germn", "German (de)"),
        ("cz", "Czech (cs)"),
        ("vietnam", "Vietnamese (vi)"),
        ("Kore", "Korean (ko)"),
    ],
)
def test_an_unknown_language_is_told_the_near_ones(unknown: str, near: str) -> None:
    with pytest.raises(InvalidOptionError) as error:
        requested_language(unknown)
    hint = str(error.value).partition("(is ")[2].partition(" meant?)")[0]
    assert near in hint


def test_what_is_like_nothing_is_told_no_near_ones() -> None:
    with pytest.raises(InvalidOptionError, match=r"'xx' is none that Qwen3-ASR knows; choose"):
        language_name("xx")


@pytest.mark.parametrize("nothing", [None, "", " ", "auto", "Auto", "AUTO "])
def test_nobody_asks_for_a_language(nothing: str | None) -> None:
    assert is_automatic(nothing)
    assert requested_language(nothing) is None


def test_what_is_no_text_asks_for_something() -> None:
    assert not any(map(is_automatic, ("en", "autos", 0, False, ["auto"])))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("language English", "English"),
        (" LANGUAGE english ", "English"),
        ("language zh", "Chinese"),
        ("language klingon", "Klingon"),
        ("a\nlanguage Greek\nlanguage German", "Greek"),
        ("language None", None),
        ("language", None),
        ("languages English", None),
        ("English", None),
        ("", None),
    ],
)
def test_the_language_that_the_model_writes(header: str, name: str | None) -> None:
    assert written_language(header) == name


def test_languages_without_spaces_between_words() -> None:
    without = {name for name in LANGUAGES if not has_word_spaces(name)}
    assert without == {"Chinese", "Cantonese", "Japanese", "Thai"}
    assert not has_word_spaces("zh-CN")
    assert has_word_spaces("ko")
    assert has_word_spaces("Klingon")  # never known, so nothing says that it has none
