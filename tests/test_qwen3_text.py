"""Tokens to words: bytes, whole words and unfinished ones, scripts without spaces."""

import random

from hypothesis import given
from hypothesis import strategies as st

from voxfast.models.qwen3_asr.decoding import Prediction
from voxfast.models.qwen3_asr.text import TokenWord, words_of

END = -1


def piece(token: int) -> bytes | None:
    """Tokens are up to three bytes."""
    return None if token == END else token.to_bytes(3).lstrip(b"\0")


def spell(*pieces: str | bytes, first_frame: int = 10) -> list[Prediction]:
    data = [p.encode() if isinstance(p, str) else p for p in pieces]
    assert all(1 <= len(d) <= 3 and d[0] for d in data)
    return [Prediction(int.from_bytes(d), 0.5, first_frame + 2 * i) for i, d in enumerate(data)]


def texts(words: list[TokenWord]) -> list[str]:
    return [word.text for word in words]


def after(text: str | bytes) -> int:
    return spell(text)[0].token


def test_a_word_is_whole_when_another_begins() -> None:
    tokens = spell("two", " th", "ree")
    assert texts(words_of(tokens, END, piece)[0]) == ["two", " three"]
    assert texts(words_of(tokens, None, piece)[0]) == ["two", " three"]
    assert texts(words_of(tokens, after(" a"), piece)[0]) == ["two", " three"]
    for following in ("s", ".", "-"):
        words, rest = words_of(tokens, after(following), piece)
        assert (texts(words), rest) == (["two"], " three")


def test_frames_and_probabilities_are_those_of_the_words_tokens() -> None:
    words, _ = words_of(spell("a", " b", "cd", "e", " f"), END, piece)
    assert words == [
        TokenWord("a", 10, 10, 0.5),
        TokenWord(" bcde", 12, 16, 0.125),
        TokenWord(" f", 18, 18, 0.5),
    ]


def test_nothing_gives_nothing() -> None:
    assert words_of([], END, piece) == ([], "")
    assert words_of([], after("a"), piece) == ([], "")


def test_scripts_without_spaces_go_character_by_character() -> None:
    tokens = spell("你", "好", "。")
    assert words_of(tokens, after("再"), piece)[1] == ""
    assert texts(words_of(tokens, after("再"), piece)[0]) == ["你", "好。"]
    words, rest = words_of(tokens, after("」"), piece)  # closes, so it belongs to it
    assert (texts(words), rest) == (["你"], "好。")


def test_characters_may_span_tokens() -> None:
    data = "数字".encode()
    tokens = spell(data[:2], data[2:4], data[4:])
    words, rest = words_of(tokens, END, piece)
    assert texts(words) == ["数", "字"]
    assert [(word.first, word.last) for word in words] == [(10, 12), (14, 14)]
    assert rest == ""
    # The next character has only begun: it may yet be one that joins the last.
    words, rest = words_of(tokens, after("再".encode()[:2]), piece)
    assert (texts(words), rest) == (["数"], "字")
    # Bytes that never become a character are no text.
    words, rest = words_of(tokens[:1], END, piece)
    assert (words, rest) == ([], "")


@given(st.text(alphabet="ab .数。🙂\u0301", max_size=12), st.integers(0, 10**6))
def test_words_and_rest_are_the_text(text: str, seed: int) -> None:
    data, cut, tokens = text.encode(), random.Random(seed), []
    while data:
        size = cut.randint(1, 3)
        tokens.append(Prediction(int.from_bytes(data[:size]), 1.0, len(tokens)))
        data = data[size:]
    for following in (None, END, after("a"), after(" "), after("数")):
        words, rest = words_of(tokens, following, piece)
        assert "".join(texts(words)) + rest == text
        assert all(0 <= w.first <= w.last < len(tokens) for w in words)
        assert [w.first for w in words] == sorted(w.first for w in words)
        assert all(w.text.strip() for w in words)
        if following in (None, END):
            assert not rest.strip()
