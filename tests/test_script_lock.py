"""A stream that is held to the script of its language."""

from collections.abc import Iterator
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast.models.voxtral.script_lock import ScriptLock, held_language, script_lock

HIRAGANA, HANGUL, HAN = "の".encode(), "한".encode(), "語".encode()
PIECES: list[bytes | None] = [
    None, b" the", "Привет".encode(), HIRAGANA, HANGUL, HAN, "日本の".encode(), b"2026", b"?! ",
    "。".encode(), HIRAGANA[:1], HIRAGANA[:2], HANGUL[:1], HAN[:2], HAN[1:], HIRAGANA + HANGUL[:2],
    b"a" + HAN[:1], b"", "é".encode(), b"\xd0", b"\xff", "کتاب".encode(), "नमस्ते".encode(),
    HAN + b" GmbH", "ー".encode(), b"\xf0\x9f", "\u0301".encode(),
]  # fmt: skip


def allowed(language: str, latin: bool = False) -> list[bytes | None]:
    code, count = held_language(language), len(PIECES)
    lock = script_lock(code, latin, lambda token: PIECES[token], count, count + 2, mx.float32)
    mask = np.array(lock.mask)
    assert np.isinf(mask[count:]).all()
    assert set(mask.tolist()) <= {0.0, -np.inf}
    return [piece for piece, value in zip(PIECES, mask, strict=False) if value == 0]


ALWAYS = [None, b"2026", b"?! ", "。".encode(), HAN[1:], b"", "\u0301".encode()]


@pytest.mark.parametrize(
    ("language", "more"),
    [
        ("ru", ["Привет".encode(), b"\xd0"]),
        ("ko_KR", [HANGUL, HANGUL[:1]]),
        ("Arabic", ["کتاب".encode()]),
        ("hi", ["नमस्ते".encode()]),
        ("zh-Hant-TW", [HAN, HAN[:2]]),
        ("ja", [HIRAGANA, HAN, "日本の".encode(), HIRAGANA[:1], HIRAGANA[:2], HAN[:2]]),
    ],
)
def test_a_language_allows_its_script_and_what_all_share(language: str, more: list[bytes]) -> None:
    found = allowed(language)
    assert set(ALWAYS + more) <= set(found)
    for piece in (b" the", "é".encode(), HAN + b" GmbH", b"a" + HAN[:1], HIRAGANA + HANGUL[:2]):
        assert piece not in found
    if language not in ("ja",):
        assert HIRAGANA not in found
    if language != "ru":
        assert "Привет".encode() not in found


def test_latin_letters_are_an_option() -> None:
    found = allowed("ja", latin=True)
    assert {b" the", "é".encode(), HAN + b" GmbH", b"a" + HAN[:1]} <= set(found)
    assert "Привет".encode() not in found


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("de", "German shares the Latin one"),
        ("English", "shares the Latin one"),
        ("sw", "ar, hi, ja, ko, ru, zh"),
        ("", "got language=''"),
    ],
)
def test_other_languages_are_refused_with_the_reason(language: str, message: str) -> None:
    with pytest.raises(voxfast.InvalidOptionError, match=message):
        allowed(language)


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load() as loaded:
        yield loaded


def test_a_locked_stream_writes_nothing_else(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """The demonstration knows English words: in Cyrillic letters it writes none of them."""
    audio = eval_items[1].audio
    with model.session(language="ru") as session, model.session() as free:
        assert session.language == "Russian"
        free.insert(audio)  # shares the passes of the other, and is not held to anything
        assert [*session.feed(audio), *session.finish()] == []
        words = [*free.process(), *free.finish()]
    with model.session(language="ru", latin=True) as session:
        latin = [*session.feed(audio), *session.finish()]
    # The tokens that are forbidden have no part in the probabilities.
    assert [replace(word, probability=1) for word in latin] == [
        replace(word, probability=1) for word in words
    ]
    gains = [one.probability - other.probability for one, other in zip(latin, words, strict=True)]
    assert 0 <= min(gains) <= max(gains) < 1e-5
    with model.session() as alone:
        assert [*alone.feed(audio), *alone.finish()] == words
    with pytest.raises(voxfast.InvalidOptionError, match="latin must be"):
        model.session(language="ja", latin=1)


def test_probabilities_are_those_among_what_is_allowed(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """One word is forbidden: the next best one gets the probability that was left for it."""
    audio = eval_items[1].audio
    with model.session() as session:
        first = [*session.feed(audio), *session.finish()][0]
    loaded = model._loaded
    tokenizer = loaded._tokenizer  # type: ignore[attr-defined]
    mask = np.zeros(1408, np.float32)
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.piece(token)
        if piece and piece.strip() and first.text.encode().startswith(piece):
            mask[token] = -np.inf
    assert np.isinf(mask).any()
    loaded._locks["ru", False] = ScriptLock("made up", mx.array(mask))  # type: ignore[attr-defined]
    with model.session(language="ru") as session:
        words = [*session.feed(audio), *session.finish()]
    del loaded._locks["ru", False]  # type: ignore[attr-defined]
    assert first.text not in [word.text for word in words]
    assert all(0 <= word.probability <= 1 for word in words)
