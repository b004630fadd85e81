"""Tokens to words: bytes, whole words and unfinished ones, scripts without spaces."""

import random

from hypothesis import given
from hypothesis import strategies as st

from voxfast.models.qwen3_asr.text import words_of
from voxfast.timed import Token

END = -1


def piece(token: int) -> bytes | None:
    """Tokens are up to three bytes."""
    return None if token == END else token.to_bytes(3).lstrip(b"\0")


def spell(*pieces: str | bytes, first_frame: int = 10) -> list[Token]:
    data = [p.encode() if isinstance(p, str) else p for p in pieces]
    assert all(1 <= len(d) <= 3 and d[0] for d in data)
    return [Token(int.from_bytes(d), 0.5, first_frame + 2 * i) for i, d in enumerate(data)]


def texts(words: list[tuple[str, list[Token]]]) -> list[str]:
    return [text for text, _ in words]


def spans(words: list[tuple[str, list[Token]]]) -> list[tuple[int, int]]:
    return [(tokens[0].position, tokens[-1].position) for _, tokens in words]


def after(text: str | bytes) -> int:
    return spell(text)[0].id


def test_a_word_is_whole_when_another_begins() -> None:
    tokens = spell("two", " th", "ree")
    assert texts(words_of(tokens, END, piece)[0]) == ["two", " three"]
    assert texts(words_of(tokens, None, piece)[0]) == ["two", " three"]
    assert texts(words_of(tokens, after(" a"), piece)[0]) == ["two", " three"]
    for following in ("s", ".", "-"):
        words, rest = words_of(tokens, after(following), piece)
        assert (texts(words), rest) == (["two"], " three")


def test_a_word_has_its_tokens() -> None:
    tokens = spell("a", " b", "cd", "e", " f")
    words, _ = words_of(tokens, END, piece)
    assert words == [("a", tokens[:1]), (" bcde", tokens[1:4]), (" f", tokens[4:])]


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
    assert spans(words) == [(10, 12), (14, 14)]
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
        tokens.append(Token(int.from_bytes(data[:size]), 1.0, len(tokens)))
        data = data[size:]
    for following in (None, END, after("a"), after(" "), after("数")):
        words, rest = words_of(tokens, following, piece)
        assert "".join(texts(words)) + rest == text
        assert all(0 <= first <= last < len(tokens) for first, last in spans(words))
        assert spans(words) == sorted(spans(words))
        assert all(word.strip() for word in texts(words))
        if following in (None, END):
            assert not rest.strip()
