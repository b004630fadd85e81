"""A user's own vocabulary: phrases with weights, compiled into a trie of tokens."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxfast.errors import InvalidOptionError
from voxfast.models.word_edges import begins_word

__all__ = [
    "DEFAULT_WEIGHT",
    "LONGEST_PHRASE",
    "Node",
    "Offers",
    "Phrase",
    "Piece",
    "Vocabulary",
    "VocabularyCompiler",
    "VocabularyEntry",
    "compile_vocabulary",
    "read_vocabulary",
]

DEFAULT_WEIGHT = 2.0
MAX_WEIGHT = 20.0
MAX_PHRASES = 20_000
LONGEST_PHRASE = 24  # tokens
LONGEST_TEXT = 400  # characters: more are no phrase, and not given to a tokenizer

VocabularyEntry = str | tuple[str, float]
Piece = Callable[[int], bytes | None]
"""The bytes of a text token; None for a special one."""


Offers = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Tokens [C] that may come next, and the budget [C] of each."""


class Phrase(NamedTuple):
    """What is going to be said, and how much the model's own choice gives way to it.

    Attributes:
        text: NFC, words separated by single spaces.
        weight: in nats, above 0; the phrase may be exp(weight) times less likely than what the
            model would write.
    """

    text: str
    weight: float


class Node:
    """A place in the trie.

    Attributes:
        children: by token.
        weight: of the phrase that ends here; -inf: none does.
        budget: the largest weight of the phrases that end here or below.
        waits: whether a next token begins another word, so that a pause may come before it.
    """

    __slots__ = ("_offers", "budget", "children", "waits", "weight")

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.weight = self.budget = -math.inf
        self.waits = False
        self._offers: Offers | None = None

    @property
    def offers(self) -> Offers:
        """The children; only once the trie is complete."""
        if self._offers is None:
            found = sorted((token, child.budget) for token, child in self.children.items())
            self._offers = (
                np.array([token for token, _ in found], np.int64),
                np.array([budget for _, budget in found], np.float64),
            )
        return self._offers


class Vocabulary:
    """Phrases as two tries of tokens, with and without a space before them; immutable, shared.

    Attributes:
        phrases: what it holds.
        budget: the largest weight; -inf if there are no phrases.
    """

    def __init__(
        self, phrases: Sequence[Phrase], encode: Callable[[str], Sequence[int]], piece: Piece
    ) -> None:
        self.phrases = tuple(phrases)
        self._spaced, self._unspaced = Node(), Node()
        for phrase in phrases:
            _add(self._spaced, _tokens(" " + phrase.text, encode, piece), phrase.weight, piece)
            _add(self._unspaced, _tokens(phrase.text, encode, piece), phrase.weight, piece)
        self.budget = self._spaced.budget

    def root(self, piece: bytes) -> Node:
        """Of the phrases that may begin with this piece or in its place: with a space as it has."""
        return self._spaced if piece[:1].isspace() else self._unspaced


def _add(node: Node, tokens: Sequence[int], weight: float, piece: Piece) -> None:
    text = b""
    node.budget = max(node.budget, weight)
    for token in tokens:
        part = piece(token) or b""
        node.waits = node.waits or begins_word(text[-4:], part)
        node, text = node.children.setdefault(token, Node()), text + part
        node.budget = max(node.budget, weight)
    node.weight = max(node.weight, weight)


def compile_vocabulary(
    entries: object, encode: Callable[[str], Sequence[int]], piece: Piece
) -> Vocabulary | None:
    """The trie of what a user gives; None if that is empty.

    Args:
        entries: see :func:`read_vocabulary`.
        encode: a text to tokens.
        piece: the bytes of a token.

    Raises:
        InvalidOptionError: see :func:`read_vocabulary`; and for a phrase that has special tokens
            or more than ``LONGEST_PHRASE``.
    """
    phrases, piece = read_vocabulary(entries), lru_cache(1 << 14)(piece)
    return Vocabulary(phrases, encode, piece) if phrases else None


class VocabularyCompiler:
    """:func:`compile_vocabulary` for a tokenizer, which keeps the last one: sessions share it."""

    def __init__(self, encode: Callable[[str], Sequence[int]], piece: Piece) -> None:
        self._encode, self._piece = encode, piece
        self._last: Vocabulary | None = None

    def __call__(self, entries: object) -> Vocabulary | None:
        """As :func:`compile_vocabulary`; from any thread."""
        phrases = read_vocabulary(entries)
        last = self._last
        if last is None or last.phrases != phrases:
            last = Vocabulary(phrases, self._encode, self._piece) if phrases else None
            self._last = last or self._last
        return last if phrases else None


def read_vocabulary(entries: object) -> tuple[Phrase, ...]:
    """Validate what a user gives as ``vocabulary=``.

    Args:
        entries: an iterable of phrases, each a text or a tuple (text, weight). Of a phrase that
            comes twice, the larger weight counts.

    Raises:
        InvalidOptionError: for anything else, an empty phrase, control characters or lone
            surrogates, a weight that is not a number above 0 and up to ``MAX_WEIGHT``, and for
            more than ``MAX_PHRASES``.
    """
    if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
        raise InvalidOptionError(
            "vocabulary must be a list of phrases, each a text or (text, weight); got "
            f"{entries!r:.60}"
        )
    given = list(islice(entries, MAX_PHRASES + 1))
    if len(given) > MAX_PHRASES:
        raise InvalidOptionError(
            f"vocabulary has more than {MAX_PHRASES} phrases; give those that are likely here"
        )
    weights: dict[str, float] = {}
    for number, entry in enumerate(given):
        text, weight = entry if _is_pair(entry) else (entry, DEFAULT_WEIGHT)
        text = _checked_text(text, number)
        weights[text] = max(weights.get(text, 0.0), _checked_weight(weight, number))
    return tuple(Phrase(text, weight) for text, weight in weights.items())


def _is_pair(entry: object) -> bool:
    return isinstance(entry, tuple | list) and len(entry) == 2


def _checked_text(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise InvalidOptionError(
            f"vocabulary[{number}] must be a text or a tuple (text, weight); got {text!r:.60}"
        )
    if len(text) > LONGEST_TEXT:
        raise InvalidOptionError(
            f"vocabulary[{number}] has {len(text)} characters, more than the {LONGEST_TEXT} of a "
            f"phrase: {text!r:.40}"
        )
    phrase = unicodedata.normalize("NFC", " ".join(text.split()))
    if not phrase:
        raise InvalidOptionError(f"vocabulary[{number}] is empty: {text!r:.40}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in phrase):
        raise InvalidOptionError(
            f"vocabulary[{number}] has control characters or lone surrogates: {text!r:.60}"
        )
    return phrase


def _checked_weight(weight: object, number: int) -> float:
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= MAX_WEIGHT:  # type: ignore[operator]
        raise InvalidOptionError(
            f"the weight of vocabulary[{number}] must be a number above 0 and up to "
            f"{MAX_WEIGHT:g}; got {weight!r:.40}"
        )
    return float(weight)  # type: ignore[arg-type]


def _tokens(text: str, encode: Callable[[str], Sequence[int]], piece: Piece) -> list[int]:
    tokens = list(encode(text))
    if any(piece(token) is None for token in tokens):
        raise InvalidOptionError(f"vocabulary may not hold special tokens; got {text.strip()!r}")
    if len(tokens) > LONGEST_PHRASE:
        raise InvalidOptionError(
            f"a phrase of the vocabulary may have {LONGEST_PHRASE} tokens of the model, and this "
            f"has {len(tokens)}: {text.strip()!r:.60}; give its names and terms one by one"
        )
    return tokens
