"""Byte-level byte-pair encoding of Qwen2 and later models."""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from heapq import heapify, heappop, heappush
from itertools import pairwise

import regex

__all__ = ["ByteLevelBPE", "byte_alphabet", "read_merges"]

# The pre-tokenizer of Qwen2: contractions; words with one preceding character; single digits;
# punctuation; line breaks; spaces.
_WORDS = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CACHED_WORDS = 4096

Ranks = Mapping[tuple[str, str], int]


class ByteLevelBPE:
    """Text to token ids.

    Args:
        vocabulary: token ids by piece, in the byte-level alphabet.
        merges: pairs of pieces by rank.
        added: ids of added tokens, which are matched first.

    Raises:
        ValueError: if a byte or the result of a merge has no token.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        added: Mapping[str, int],
    ) -> None:
        self._vocabulary, self._added = vocabulary, added
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._letters = {byte: letter for letter, byte in byte_alphabet().items()}
        made = (first + second for first, second in ranks)
        lost = next((p for p in (*self._letters.values(), *made) if p not in vocabulary), None)
        if lost is not None:
            raise ValueError(f"the vocabulary has no {lost!r:.60}")
        self._pieces = lru_cache(_CACHED_WORDS)(partial(_merge, ranks))
        longest_first = sorted(added, key=len, reverse=True)
        self._split = regex.compile("|".join(map(regex.escape, longest_first)) or "(?!)")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; text between added tokens is normalised to NFC."""
        tokens, begin = [], 0
        for match in self._split.finditer(text):
            tokens += self._encode(text[begin : match.start()])
            tokens.append(self._added[match[0]])
            begin = match.end()
        return tokens + self._encode(text[begin:])

    def _encode(self, text: str) -> list[int]:
        tokens = []
        for word in _WORDS.findall(unicodedata.normalize("NFC", text)):
            letters = "".join(self._letters[byte] for byte in word.encode())
            tokens += [self._vocabulary[piece] for piece in self._pieces(letters)]
        return tokens


def _merge(ranks: Ranks, letters: str) -> tuple[str, ...]:
    """The pieces of a word, by merging the leftmost pair of the lowest rank repeatedly.

    With a heap, in O(n log n): a word may be as long as a user's prompt.
    """
    pieces = list(letters)  # a piece that was merged into the previous one is empty
    count = len(pieces)
    following, before = list(range(1, count + 1)), list(range(-1, count - 1))
    heap = [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, at = heappop(heap)
        end = following[at]
        if end == count or ranks.get((pieces[at], pieces[end])) != rank:
            continue  # one of the two has been merged with another piece
        pieces[at], pieces[end] = pieces[at] + pieces[end], ""
        following[at] = following[end]
        if following[at] < count:
            before[following[at]] = at
        for left in (before[at], at):
            if left >= 0 and following[left] < count:
                pair = (pieces[left], pieces[following[left]])
                if pair in ranks:
                    heappush(heap, (ranks[pair], left))
    return tuple(piece for piece in pieces if piece)


def read_merges(text: str) -> list[tuple[str, str]]:
    """The pairs in a ``merges.txt``. Only the first line may be a comment, with the version.

    Raises:
        ValueError: if a line is not a pair.
    """
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise ValueError(f"line {number} must be two pieces; it is {line!r:.60}")
        pairs.append((pair[0], pair[1]))
    return pairs


def byte_alphabet() -> dict[str, int]:
    """The characters that represent bytes in a byte-level vocabulary, as in GPT-2.

    Printable bytes of Latin-1 represent themselves, other bytes use code points from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }
