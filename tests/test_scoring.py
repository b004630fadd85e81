"""The scores that other tests and the benches rely on, by hand."""

import math

import pytest
from evaluation import EvalWord

from voxfast.bench.scoring import (
    character_error_rate,
    differences,
    normalise,
    normalise_words,
    score,
    word_error_rate,
    word_errors,
)
from voxfast.timed import Word


def words(*entries: tuple[str, float, float]) -> list[EvalWord]:
    return [EvalWord(*entry) for entry in entries]


REFERENCE = words(("one", 1.0, 1.5), ("two", 1.5, 2.0), ("three", 3.0, 3.5), ("four", 4.0, 4.5))


def test_perfect() -> None:
    result = score([REFERENCE], [REFERENCE])
    assert (result.word_error_rate, result.n_words, result.n_correct) == (0.0, 4, 4)
    assert result.start.mean_absolute == result.end.bias == result.end.percentile_95 == 0.0


def test_times_of_correct_words_only() -> None:
    hypothesis = words(
        (" one", 1.1, 1.4),  # 0.1 late, 0.1 early
        (" too", 9.0, 9.9),  # substituted
        (" oh", 9.0, 9.9),  # inserted
        (" three", 2.7, 3.8),  # 0.3 early, 0.3 late; "four" is deleted
    )
    result = score([REFERENCE], [hypothesis])
    assert result.word_error_rate == pytest.approx(3 / 4)
    assert (result.n_words, result.n_correct) == (4, 2)
    assert result.start.mean_absolute == pytest.approx(0.2)
    assert result.start.bias == pytest.approx(-0.1)
    assert result.end.mean_absolute == pytest.approx(0.2)
    assert result.end.bias == pytest.approx(0.1)
    assert result.end.percentile_95 == pytest.approx(0.1 + 0.95 * 0.2)


def test_clips_are_pooled() -> None:
    single = words(("five", 1.0, 1.5))
    late = words(("five", 1.2, 1.5))
    result = score([REFERENCE, single, single], [REFERENCE, late, []])
    assert result.word_error_rate == pytest.approx(1 / 6)
    assert result.start.mean_absolute == pytest.approx(0.2 / 5)


def test_words_beyond_a_silent_clip_are_errors() -> None:
    assert score([REFERENCE, []], [REFERENCE, REFERENCE]).word_error_rate == 1.0


def test_nothing_recognised() -> None:
    result = score([REFERENCE], [[]])
    assert result.word_error_rate == 1.0
    assert math.isnan(result.start.bias)
    assert math.isnan(result.end.percentile_95)


def test_word_error_rate_of_texts() -> None:
    assert word_error_rate([" one  two", "three"], ["one two", "tree four"]) == 2 / 3
    assert word_error_rate(["One"], ["one"]) == 1.0


def test_rejects_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="1 references, but 2 hypotheses"):
        score([REFERENCE], [REFERENCE, REFERENCE])
    with pytest.raises(ValueError, match="hold no word"):
        score([[]], [[]])
    with pytest.raises(ValueError, match="' one two'"):
        score([REFERENCE], [words((" one two", 1.0, 2.0))])
    with pytest.raises(ValueError, match="' '"):
        score([REFERENCE], [words((" ", 1.0, 2.0))])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Don’t -- stop, O'Brien!", "don't stop o'brien"),
        ("'Tis well-known: 3.5 %", "tis well known 3 5"),
        ("ＡＢＣ  naïve", "abc naïve"),
        ("你好, world。", "你 好 world"),
        (" ... ", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


def test_parts_of_a_word_share_its_times() -> None:
    found = normalise_words([Word(" Well-known,", 1.0, 2.0), Word(" --", 2.0, 3.0)])
    assert found == [Word("well", 1.0, 2.0), Word("known", 1.0, 2.0)]


def test_character_error_rate() -> None:
    assert character_error_rate(["abcd", ""], ["abxd", "yz"]) == 3 / 4
    assert character_error_rate(["ab", "ab"], ["ab", ""]) == 2 / 4
    assert word_errors("One, two.", "one too") == (1, 2)
    with pytest.raises(ValueError, match="no character"):
        character_error_rate([""], ["a"])


def test_differences_are_shown_with_words_around() -> None:
    said = "one two three four five six seven eight nine"
    heard = "One, two three for five six six seven nine."
    assert differences(said, heard, context=2) == [
        "two three [four → for] five six",
        "five six [ → six] seven eight",
        "six seven [eight → ] nine",
    ]
    assert differences("a b", "") == ["[a b → ]"]
