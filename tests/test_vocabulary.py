"""A vocabulary: what is accepted, the trie, and the rule against its definition."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from vocabulary_reference import Model, Reference

from voxfast.errors import InvalidOptionError
from voxfast.models.speller import Speller, Written
from voxfast.models.vocabulary import (
    DEFAULT_WEIGHT,
    LONGEST_PHRASE,
    Vocabulary,
    VocabularyCompiler,
    compile_vocabulary,
    read_vocabulary,
)
from voxfast.models.word_edges import begins_word, ends_word

# Blank and marker; then text whose pieces overlap, so that phrases share beginnings.
PIECES: list[bytes | None] = [
    None, None, b" ", b"a", b"b", b" a", b" b", b"ab", b" ab", b",", b"a b", "の".encode(),
    "日".encode(), "の".encode()[:1], "の".encode()[1:], b"-", None,
]  # fmt: skip
TEXT = range(2, len(PIECES) - 1)
PAUSES = (0, 1)  # and the last one is none


def encode(text: str) -> list[int]:
    """The longest piece first."""
    tokens, rest = [], text.encode()
    while rest:
        fitting = [i for i in TEXT if PIECES[i] and rest.startswith(PIECES[i])]
        token = max(fitting, key=lambda i: len(PIECES[i] or b""))
        tokens.append(token)
        rest = rest[len(PIECES[token] or b"") :]
    return tokens


def made_up(seed: int, spread: float) -> Model:
    """A model whose logits depend on its last three tokens and on the position."""

    def logits(text: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng((seed, len(text), *text[-3:]))
        values = spread * rng.standard_normal(len(PIECES))
        values[[0, 1, -1]] += rng.choice([0.0, 3.0 * spread], p=[0.75, 0.25])  # blanks come in runs
        return values

    return logits


def spell(model: Model, vocabulary: Vocabulary | None, count: int) -> tuple[list[Written], int]:
    """Decode ``count`` positions as a decoder does; also how many were undone."""
    speller, text, undone = Speller(PIECES.__getitem__, vocabulary, PAUSES), [], 0
    written: list[Written] = []
    while len(text) < count or speller.held:
        if len(text) < count:
            logits = model(tuple(text))
            own = int(logits.argmax())
            probability = float(1 / np.exp(logits - logits[own]).sum())
            choice = speller.choose(own, probability, lambda tokens, row=logits: row[tokens])
        else:
            ending = speller.finish()
            assert ending is not None
            choice = ending
            if not choice.undone:
                written += choice.written
                break
        if choice.undone:
            undone += choice.undone
            del text[len(text) - choice.undone :]
        text.append(choice.token)
        written += choice.written
        assert len(written) + speller.held == len(text)
    return written, undone


def phrases(rng: np.random.Generator) -> list[tuple[str, float]]:
    letters = ["a", "b", "ab", "a b", "b a", "の", "日", "a,b", "ab-a", "のa", "b ab"]
    words = ["".join(rng.choice(letters, rng.integers(1, 4))) for _ in range(rng.integers(1, 9))]
    return [(word, float(rng.uniform(0.1, 6))) for word in words]


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = phrases(rng)
    model = made_up(seed, float(rng.choice([0.5, 1.0, 2.0])))
    vocabulary = compile_vocabulary(entries, encode, PIECES.__getitem__)
    assert vocabulary is not None
    spellings = [
        (tuple(encode(form)), phrase.weight)
        for phrase in vocabulary.phrases
        for form in (" " + phrase.text, phrase.text)
    ]
    reference = Reference(model, PIECES, PAUSES, spellings, 120)
    expected = reference.decode()
    found, _ = spell(model, vocabulary, 120)
    assert [token for token, _, _ in found] == expected
    text: tuple[int, ...] = ()
    for token, probability, certainty in found:  # those of the model, before any weight
        logits = model(text)
        likely = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert probability == pytest.approx(likely[token], rel=1e-9)
        assert certainty == pytest.approx(likely.max(), rel=1e-9)
        if PIECES[token] is None:
            assert token == int(logits.argmax())  # blanks stay, and none is put in
        else:
            assert PIECES[int(logits.argmax())] is not None
        text += (token,)


def test_the_made_up_models_try_and_fail_and_succeed() -> None:
    """Else the test above would show little."""
    changed = failed = 0
    for seed in range(20):
        model = made_up(seed, 1.0)
        entries = phrases(np.random.default_rng(seed))
        vocabulary = compile_vocabulary(entries, encode, PIECES.__getitem__)
        found, undone = spell(model, vocabulary, 120)
        alone, nothing = spell(model, None, 120)
        changed += found != alone
        failed += undone > 0
        assert nothing == 0
    assert changed > 10
    assert failed > 10


def test_a_phrase_that_fails_leaves_nothing() -> None:
    """A phrase of which the model gives only the beginning a chance."""

    def model(text: tuple[int, ...]) -> np.ndarray:
        """It writes " b" and then blanks; " a" comes close, and "-" behind it does not."""
        values = np.full(len(PIECES), -30.0)
        values[[6, 5] if not text else [0, 1]] = [0.0, -1.0]
        return values

    vocabulary = compile_vocabulary([("a-b", 4.0)], encode, PIECES.__getitem__)
    found, undone = spell(model, vocabulary, 6)
    assert undone == 1
    assert found == spell(model, None, 6)[0]


def test_what_the_model_writes_itself_comes_before_a_rival() -> None:
    def model(text: tuple[int, ...]) -> np.ndarray:
        values = np.full(len(PIECES), -30.0)
        values[[6, 5] if not text else [0, 1]] = [0.0, -0.5]
        return values

    def first(*entries: tuple[str, float]) -> bytes | None:
        vocabulary = compile_vocabulary(entries, encode, PIECES.__getitem__)
        return PIECES[spell(model, vocabulary, 4)[0][0].token]

    assert first(("b", 1.0)) == b" b"
    assert first(("a", 1.0)) == b" a"
    assert first(("a", 1.0), ("b", 1.0)) == b" b"
    assert first(("a", 3.0), ("b", 1.0)) == b" a"
    assert first(("a", 1.0), ("b,", 1.0)) == b" a"  # " b" alone is no phrase


def test_weights_are_nats() -> None:
    def model(text: tuple[int, ...]) -> np.ndarray:
        values = np.full(len(PIECES), -30.0)
        values[[6, 5] if not text else [0, 1]] = [0.0, -2.0]
        return values

    for weight, word in ((1.99, b" b"), (2.01, b" a")):
        vocabulary = compile_vocabulary([("a", weight)], encode, PIECES.__getitem__)
        found, _ = spell(model, vocabulary, 3)
        assert PIECES[found[0].token] == word


def test_logits_are_read_only_where_a_phrase_comes_into_question() -> None:
    """A token that is sure costs nothing: what is left for others is too little."""

    def unread(tokens: np.ndarray) -> np.ndarray:
        raise AssertionError

    vocabulary = compile_vocabulary([("a", 4.0)], encode, PIECES.__getitem__)
    speller = Speller(PIECES.__getitem__, vocabulary)
    assert speller.choose(6, 0.99, unread).token == 6
    assert speller.choose(0, 0.3, unread).token == 0
    with pytest.raises(AssertionError):
        speller.choose(6, 0.97, unread)


@pytest.mark.parametrize(
    ("tail", "piece", "begins", "ends"),
    [
        (b"", b"a", True, False),
        (b"a", b"b", False, False),
        (b"a", b" b", True, True),
        (b" ", b"b", True, False),
        (b"a", b",", False, True),
        (b"-", b"b", True, False),
        (b"a", "の".encode(), True, True),
        ("の".encode(), b"a", True, True),
        ("の".encode()[:2], "の".encode()[2:], False, False),
        (b"a", "\u0301".encode(), False, False),
        ("é".encode(), b"x", False, False),
        (b"1", b"2", False, False),
        (b"a", b"", False, False),
    ],
)
def test_where_words_begin_and_end(tail: bytes, piece: bytes, begins: bool, ends: bool) -> None:
    assert begins_word(tail, piece) is begins
    assert ends_word(tail, piece) is ends
    assert ends_word(tail, None)


# What is accepted


def test_phrases_are_normalised() -> None:
    phrases = read_vocabulary(["  New \n York", ("Zu\u0308rich", 2), "New York", ["x", 3.0]])
    assert phrases == (("New York", DEFAULT_WEIGHT), ("Zürich", 2.0), ("x", 3.0))
    assert read_vocabulary([("x", 1.0), ("x", 3.0), ("x", 2.0)]) == (("x", 3.0),)
    assert read_vocabulary(iter(["x"])) == (("x", DEFAULT_WEIGHT),)
    assert compile_vocabulary((), encode, PIECES.__getitem__) is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("voxfast", "must be a list of phrases"),
        (None, "must be a list of phrases"),
        (7, "must be a list of phrases"),
        ([""], r"vocabulary\[0\] is empty"),
        (["a", " \t\n"], r"vocabulary\[1\] is empty"),
        ([b"a"], r"vocabulary\[0\] must be a text"),
        ([None], r"vocabulary\[0\] must be a text"),
        ([("a", 1.0, 2.0)], r"vocabulary\[0\] must be a text"),
        ([(7, 1.0)], r"vocabulary\[0\] must be a text"),
        (["\ud800"], "lone surrogates"),
        (["a\x00b"], "control characters"),
        (["a" * 10_000], "10000 characters"),
        ([("a", math.nan)], "got nan"),
        ([("a", math.inf)], "got inf"),
        ([("a", -1.0)], "got -1.0"),
        ([("a", 0)], "got 0"),
        ([("a", 1e9)], "up to 20; got 1000000000.0"),
        ([("a", "4")], "got '4'"),
        ([("a", True)], "got True"),
        ([("a", None)], "got None"),
        ([("a", 10**400)], "above 0 and up to 20"),
        (["b-" * LONGEST_PHRASE], "may have 24 tokens"),
    ],
)
def test_anything_else_is_refused(entries: object, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        compile_vocabulary(entries, encode, PIECES.__getitem__)


def test_an_endless_list_is_refused() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a"

    with pytest.raises(InvalidOptionError, match="more than 20000 phrases"):
        read_vocabulary(endless())


def test_special_tokens_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="special tokens; got 'a'"):
        compile_vocabulary(["a"], lambda text: [0], PIECES.__getitem__)


def test_the_last_vocabulary_is_compiled_once() -> None:
    encoded: list[str] = []

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return list(text.encode())

    compiler = VocabularyCompiler(encode, lambda token: bytes([token]))
    first = compiler(["one", ("two", 1.0)])
    count = len(encoded)
    assert compiler([("one", 2.0), " two ", ("two", 1.0)]) is not first  # "two" weighs 2 here
    assert len(encoded) > count
    again = compiler(["one", ("two", 1.0)])
    count = len(encoded)
    assert compiler((("one", 2), ("two", 1))) is again
    assert compiler([]) is None
    assert compiler(["one", ("two", 1.0)]) is again
    assert len(encoded) == count
