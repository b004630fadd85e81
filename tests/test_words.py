"""Tokens to words: bytes, groups, scripts without spaces, times, probabilities."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfast.models.scripts import split_words
from voxfast.models.traits import Traits, WordTiming
from voxfast.models.voxtral.words import WordAssembler
from voxfast.timed import Token, Word, join

PAD, WORD, EOS = 32, 33, 2
FIRST_TEXT = 1000
TIMING = WordTiming(end_offset=0.0, start_base=0.1, start_per_character=0.05, least_pause=0.2)


def assembler(least_probability: float = 0.0) -> WordAssembler:
    """Text token 1000 + b is the byte b; a group of token k ends at k * 0.08 s."""
    return WordAssembler(
        WORD,
        lambda token: bytes([token - FIRST_TEXT]) if token >= FIRST_TEXT else None,
        lambda k: k * 0.08,
        Traits(timing=TIMING, least_probability=least_probability),
    )


def spell(text: str | bytes) -> list[int]:
    data = text.encode() if isinstance(text, str) else text
    return [FIRST_TEXT + byte for byte in data]


def run(tokens: list[int], probability: float = 1.0) -> list[Word]:
    words = assembler()
    found: list[Word] = []
    for k, token in enumerate(tokens):
        found += words.add(Token(token, probability, k))
    return found + words.close()


def texts(tokens: list[int]) -> list[str]:
    return [word.text for word in run(tokens)]


def test_a_word_is_committed_by_what_follows_it() -> None:
    words = assembler()
    for k, token in enumerate([PAD, WORD, *spell(" nine")]):
        assert words.add(Token(token, 1.0, k)) == []
    assert words.tentative == " nine"
    [word] = words.add(Token(PAD, 1.0, 7))
    assert word.text == " nine"
    assert word.end == 0.08  # the marker's place
    assert words.tentative == ""


@pytest.mark.parametrize("after", [PAD, WORD, EOS])
def test_every_special_token_ends_a_group(after: int) -> None:
    words = assembler()
    words.add(Token(WORD, 1.0, 0))
    for k, token in enumerate(spell(" up"), 1):
        words.add(Token(token, 1.0, k))
    assert [word.text for word in words.add(Token(after, 1.0, 4))] == [" up"]


def test_words_of_a_group_share_its_time() -> None:
    words = run([PAD] * 10 + [WORD, *spell(" two three"), PAD])
    assert [word.text for word in words] == [" two", " three"]
    assert words[0].start == words[1].start < words[0].end == words[1].end == 0.8


def test_text_without_a_marker_is_not_lost() -> None:
    assert texts([*spell(" one"), PAD, *spell(" two")]) == [" one", " two"]


def test_characters_that_span_tokens_and_groups_are_whole() -> None:
    assert texts([WORD, *spell(" naïve"), PAD]) == [" naïve"]
    first, second = spell("é")
    assert texts([WORD, *spell(" caf"), first, PAD, second, PAD]) == [" caf", "é"]


@pytest.mark.parametrize("special", [[PAD], [WORD], [EOS], [PAD, PAD, WORD], [PAD, WORD, PAD]])
@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((" in ", "1990"), [" in", " 1990"]),
        ((" in", " ", "1990"), [" in", " 1990"]),
        ((" end.", "\n", "Then"), [" end.", "\nThen"]),
        ((" a\n\n", " \t", " b"), [" a", "\n\n \t b"]),
        ((" wait", "...", " go"), [" wait", "...", " go"]),
        ((" thir", "teen"), [" thir", "teen"]),
        (("今", " ", "天"), ["今", " 天"]),
        ((" ", "one"), [" one"]),
        ((" one", " "), [" one"]),
        ((" ", "\n"), []),
    ],
)
def test_a_special_token_between_pieces_takes_no_space(
    pieces: tuple[str, ...], words: list[str], special: list[int]
) -> None:
    tokens = [WORD, *spell(pieces[0])]
    for piece in pieces[1:]:
        tokens += [*special, *spell(piece)]
    assert texts(tokens) == words


def test_a_space_alone_is_not_shown_as_tentative_text() -> None:
    words = assembler()
    for k, token in enumerate([WORD, *spell(" in ")]):
        words.add(Token(token, 0.5, k))
    assert words.tentative == ""
    words.add(Token(PAD, 1.0, 5))
    words.add(Token(WORD, 1.0, 6))
    words.add(Token(spell("1")[0], 1.0, 7))
    assert words.tentative == " 1"
    [word] = words.close()
    assert word.text == " 1"
    assert word.probability == 0.5  # the space's
    assert word.end == pytest.approx(6 * 0.08)


def test_bytes_that_are_no_text_are_dropped_without_harm() -> None:
    assert texts([WORD, *spell(b" a\xff\xc3b"), PAD, WORD, *spell(" c"), PAD]) == [" ab", " c"]


def test_a_replacement_character_that_the_model_means_stays() -> None:
    assert texts([WORD, *spell(" \ufffd"), PAD]) == [" \ufffd"]


def test_scripts_without_spaces_come_character_by_character() -> None:
    words = assembler()
    words.add(Token(WORD, 1.0, 0))
    seen = []
    for k, token in enumerate(spell("今天，好"), 1):
        seen.append([word.text for word in words.add(Token(token, 1.0, k))])
    assert [text for part in seen for text in part] == ["今", "天，"]
    assert seen[5] == ["今"]  # as soon as the next character is whole
    assert [word.text for word in words.close()] == ["好"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" hello world", [" hello", " world"]),
        ("don't", ["don't"]),
        (" (yes) no", [" (yes)", " no"]),
        ("f(x)", ["f(x)"]),
        ("我说「好」吗", ["我", "说", "「好」", "吗"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("我love你", ["我", "love", "你"]),
        ("カタカナ語", ["カ", "タ", "カ", "ナ", "語"]),
        ("  two  spaces ", ["  two", "  spaces", " "]),
        ("", []),
    ],
)
def test_split_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(max_size=40))
def test_split_words_gives_the_text_again(text: str) -> None:
    assert "".join(split_words(text)) == text


@given(
    st.lists(
        st.one_of(
            st.just(PAD),
            st.just(WORD),
            st.just(EOS),
            st.integers(FIRST_TEXT, FIRST_TEXT + 255),
            st.sampled_from(spell(" \n.aé今")),
        ),
        max_size=60,
    )
)
def test_times_are_ordered_and_no_text_is_lost(tokens: list[int]) -> None:
    words = run(tokens)
    for word in words:
        assert 0 <= word.start <= word.end
    for before, after in itertools.pairwise(words):
        assert before.start <= after.start
        assert before.end <= after.end
    data = bytes(token - FIRST_TEXT for token in tokens if token >= FIRST_TEXT)
    meant = data.decode("utf-8", errors="ignore")
    assert "".join(word.text for word in words) == meant.rstrip()
    assert all(word.text.strip() for word in words)


def test_long_pauses_do_not_stretch_words() -> None:
    first, second = run([PAD] * 5 + [WORD, *spell(" a"), *[PAD] * 100, WORD, *spell(" nine")])
    assert first.end == 0.4
    assert second.end - second.start == pytest.approx(0.1 + 4 * 0.05)


def test_words_that_the_model_finds_unlikely_are_left_out() -> None:
    words = assembler(least_probability=0.5)
    found = []
    tokens = [WORD, *spell(" ab"), PAD, WORD, *spell(" c"), PAD]
    for k, token in enumerate(tokens):
        found += words.add(Token(token, 0.7 if k < 4 else 0.8, k))
    assert [word.text for word in found] == [" c"]  # 0.7 ** 3 < 0.5 < 0.8 ** 2
    assert words.tentative == ""


def test_words_of_a_phrase_touch() -> None:
    first, second, third = run(
        [PAD] * 5
        + [WORD, *spell(" a"), PAD, WORD, *spell(" b"), *[PAD] * 9, WORD, *spell(" c"), PAD]
    )
    assert second.start == first.end  # 0.32 s apart: 0.17 s of silence is none
    assert third.start == pytest.approx(third.end - 0.15)


def test_probability_is_the_product_over_the_word() -> None:
    words = assembler()
    values = [random.Random(0).uniform(0.5, 1) for _ in range(9)]
    tokens = [WORD, *spell(" ab cd")]
    found = []
    for k, (token, value) in enumerate(zip(tokens, values, strict=False)):
        found += words.add(Token(token, value, k))
    found += words.close()
    assert found[0].probability == pytest.approx(values[1] * values[2] * values[3])
    assert found[1].probability == pytest.approx(values[4] * values[5] * values[6])
    assert join(found) == "ab cd"
