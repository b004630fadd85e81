"""The stream over decoder positions: what goes in, what should come out, what it says.

A stream of delay d has, in positions of 80 ms: 32 of zeros, the audio padded to whole positions,
and d + 11 of zeros. The inputs are BOS, then [STREAMING_PAD] up to position 32 + d, then the
previous output. Outputs count from k = 0 at position 32 + d; so there are k = 0 … audio + 10 of
them, whatever the delay.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..speech import Word

__all__ = [
    "BOS",
    "FIRST_TEXT_ID",
    "FLUSH",
    "LEFT_PAD",
    "PAD",
    "POSITION_SAMPLES",
    "POSITION_SECONDS",
    "WORD",
    "expected_outputs",
    "output_count",
    "pad_audio",
    "prompt",
    "read_words",
]

BOS, PAD, WORD = 1, 32, 33  # <s>, [STREAMING_PAD], [STREAMING_WORD]
FIRST_TEXT_ID = 1000
LEFT_PAD = 32  # positions of zeros before the audio
FLUSH = 11  # positions of zeros after it, in addition to the delay
POSITION_SAMPLES = 1280
POSITION_SECONDS = 0.08


def output_count(samples: int) -> int:
    """Outputs of a stream with that many samples of audio."""
    return math.ceil(samples / POSITION_SAMPLES) + FLUSH


def pad_audio(audio: NDArray[np.float32], delay: int) -> NDArray[np.float32]:
    """``audio`` [N] with the stream's zeros around it, a whole number of positions."""
    after = (output_count(len(audio)) + delay) * POSITION_SAMPLES - len(audio)
    return np.pad(audio, (LEFT_PAD * POSITION_SAMPLES, after))


def prompt(delay: int) -> list[int]:
    """Inputs of positions 0 … 32 + delay; the last one gives output k = 0."""
    return [BOS] + [PAD] * (LEFT_PAD + delay)


def expected_outputs(
    words: Sequence[Word],
    tokens: Mapping[str, Sequence[int]],
    count: int,
    *,
    late: float = 0.0,
    rng: Generator | None = None,
) -> NDArray[np.int64]:
    """The outputs k = 0 … count − 1 that say ``words``.

    A word that ends at e seconds has [STREAMING_WORD] at k = ceil(e / 0.08), or right behind the
    word before it where that one still takes the place; its tokens follow. All else is
    [STREAMING_PAD]. Words that do not fit are left out.

    Args:
        tokens: text ids of each word.
        late: probability that a word comes one position later, for training; needs ``rng``.
    """
    outputs = np.full(count, PAD, np.int64)
    free = 0
    for word in words:
        # 1e-6: an end on the boundary belongs to the position that it closes.
        marker = max(free, math.ceil(word.end / POSITION_SECONDS - 1e-6))
        if rng is not None and rng.random() < late:
            marker += 1
        said = [WORD, *tokens[word.text]]
        free = marker + len(said)
        if free > count:
            break
        outputs[marker:free] = said
    return outputs


def read_words(outputs: Sequence[int], decode: Callable[[list[int]], str]) -> list[Word]:
    """The words that ``outputs`` (k = 0 first) say, each from one marker to the next.

    ``end`` is the time of the marker, on average half a position late (it was rounded up);
    ``start`` is not known and the same. Text before the first marker, which only an unfinished
    model writes, is dated by its first token.
    """
    words: list[Word] = []
    ids: list[int] = []
    marker: int | None = None
    for k, token in enumerate([*outputs, WORD]):
        if token == WORD:
            if ids and marker is not None:
                time = marker * POSITION_SECONDS
                words.append(Word(decode(ids).strip(), time, time))
            ids, marker = [], k
        elif token >= FIRST_TEXT_ID:
            marker = k if marker is None else marker
            ids.append(token)
    return words
