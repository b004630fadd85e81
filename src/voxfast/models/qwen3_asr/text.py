"""Tokens of a Qwen3-ASR stream to words, each whole or not yet."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from voxfast.models.qwen3_asr.decoding import Prediction
from voxfast.models.scripts import split_words

__all__ = ["TokenWord", "words_of"]

Piece = Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class TokenWord:
    """A word and where it was heard.

    Attributes:
        text: with the space before it, if the model wrote one.
        first, last: attended frames of its first and last token.
        probability: the product of its tokens' probabilities.
    """

    text: str
    first: int
    last: int
    probability: float


def words_of(
    tokens: Sequence[Prediction], following: int | None, piece: Piece
) -> tuple[list[TokenWord], str]:
    """Cut decoded tokens into words.

    Text is put together from bytes, so a character that spans tokens is whole. The last word
    is whole if the token that would follow begins another one; in scripts without spaces
    every character is a word.

    Args:
        tokens: that were kept.
        following: the token after them, which was not; None if nothing follows, ever.
        piece: the bytes of a text token, None for a special one.

    Returns:
        The words that are whole, and the text that is not.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="ignore").decode
    text, spans = "", []
    for token in tokens:
        begin = len(text)
        text += decode(piece(token.token) or b"")
        spans.append((begin, len(text)))
    pieces = split_words(text)
    next_piece = None if following is None else piece(following)
    next_text = decode(next_piece or b"")
    # Without a whole character nobody knows what is next.
    unknown = next_piece is not None and not next_text
    joined = bool(pieces) and split_words(pieces[-1] + next_text)[0] != pieces[-1]
    # White space alone is the beginning of a word.
    open_ended = bool(pieces) and (unknown or joined or not pieces[-1].strip())
    rest = pieces.pop() if open_ended else ""
    words, end = [], 0
    for word in pieces:
        begin, end = end, end + len(word)
        own = [t for t, span in zip(tokens, spans, strict=True) if _overlap(span, begin, end)]
        words.append(TokenWord(word, own[0].frame, own[-1].frame, prod(t.probability for t in own)))
    return words, rest


def _overlap(span: tuple[int, int], begin: int, end: int) -> bool:
    """Whether a token is part of a word; one without a whole character is of the next one."""
    return begin <= span[0] < end if span[0] == span[1] else span[0] < end and begin < span[1]
