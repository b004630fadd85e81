"""Splitting the tokens of a Qwen3-ASR stream into words."""

import codecs
from collections.abc import Callable, Sequence

from voxfast.models.scripts import split_words
from voxfast.timed import Token

__all__ = ["words_of"]

Piece = Callable[[int], bytes | None]


def words_of(
    tokens: Sequence[Token], following: int | None, piece: Piece
) -> tuple[list[tuple[str, list[Token]]], str]:
    """Split decoded tokens into words.

    Text is decoded from the concatenated bytes, so a character may span tokens. The last word is
    complete if the following token begins another one. In scripts without spaces, every
    character is a word.

    Args:
        tokens: the kept tokens.
        following: the first token after them; None at the end of an utterance.
        piece: the bytes of a text token, None for a special one.

    Returns:
        The complete words, each with its tokens, and the remaining text. A word includes the
        space before it.
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
    # The following token may be the first bytes of a character.
    unknown = next_piece is not None and not next_text
    joined = bool(pieces) and split_words(pieces[-1] + next_text)[0] != pieces[-1]
    # White space is the beginning of a word.
    open_ended = bool(pieces) and (unknown or joined or not pieces[-1].strip())
    rest = pieces.pop() if open_ended else ""
    words, end = [], 0
    for word in pieces:
        begin, end = end, end + len(word)
        own = [t for t, span in zip(tokens, spans, strict=True) if _overlap(span, begin, end)]
        words.append((word, own))
    return words, rest


def _overlap(span: tuple[int, int], begin: int, end: int) -> bool:
    """Whether a token is part of a word; an incomplete character belongs to the next one."""
    return begin <= span[0] < end if span[0] == span[1] else span[0] < end and begin < span[1]
