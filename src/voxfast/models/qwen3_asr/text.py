"""Tokens of a Qwen3-ASR stream to words, each whole or not yet."""

import codecs
from collections.abc import Callable, Sequence

from voxfast.models.scripts import split_words
from voxfast.timed import Token

__all__ = ["words_of"]

Piece = Callable[[int], bytes | None]


def words_of(
    tokens: Sequence[Token], following: int | None, piece: Piece
) -> tuple[list[tuple[str, list[Token]]], str]:
    """Cut decoded tokens into words.

    Text is put together from bytes, so a character that spans tokens is whole. The last word
    is whole if the token that would follow begins another one; in scripts without spaces
    every character is a word.

    Args:
        tokens: that were kept.
        following: the token after them, which was not; None if nothing follows, ever.
        piece: the bytes of a text token, None for a special one.

    Returns:
        The words that are whole, each with its tokens, and the text that is not. A word has
        the space before it, if the model wrote one.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="ignore").decode
    text, spans = "", []
    for token in tokens:
        begin = len(text)
        text += decode(piece(token.id) or b"")
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
        words.append((word, own))
    return words, rest


def _overlap(span: tuple[int, int], begin: int, end: int) -> bool:
    """Whether a token is part of a word; one without a whole character is of the next one."""
    return begin <= span[0] < end if span[0] == span[1] else span[0] < end and begin < span[1]
