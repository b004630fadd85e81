"""Training batches of Qwen3-ASR: pieces of clips, prompts, transcripts, and where words are."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ..augment import draw_channels, draw_filterbanks, draw_tilts, mask_bands, stretch_words
from ..clips import Noise, draw_scene
from ..grammar import VOCABULARY
from ..mel import HOP, N_MELS
from ..pool import Mixture, Pool
from ..speech import SAMPLE_RATE, Word
from .config import QwenRecipe, Shape
from .features import log_mel
from .model import CHUNK_FRAMES, CHUNK_TOKENS, audio_tokens
from .tokenizer import Tokenizer

__all__ = ["IGNORED", "NO_WORD", "Batch", "Batches", "Example", "build", "token_times"]

IGNORED = -100  # target without loss, as in torch
NO_WORD = len(VOCABULARY)  # auxiliary class of audio tokens without a word
TOKEN_SECONDS = 0.08
SLACK = 0.04  # seconds by which a word may begin before a piece
ENDING = -0.06, 0.02  # seconds around the end of a word: the audio token to attend to

WHOLE = 0.45  # part of the examples that are a whole clip, not one cut at a random time
EARLY = 0.35  # of the cut ones: within the first phrase, as every stream begins
PAUSE = 0.25  # seconds between two phrases
TRIMMED = 0.5  # of the whole ones: cut 0.02 to 0.8 s after the last word
MID_STREAM = 0.2  # begin somewhere in the clip
FORCED = 0.6  # have the language in the prompt
CONTEXT = 0.2  # have a context of words that say nothing
COMMITTED = 0.4  # have the first words in the prompt
LEAST_SECONDS = 1.0  # of a piece


class Batch(NamedTuple):
    """B examples of one shape.

    Attributes:
        mel: [B, T, N_MELS] float32, zeros beyond each end.
        counts: [B] int64 audio tokens.
        ids, places: [B, L] int64 compact ids, and the audio token that stands there or −1.
        queries, targets: [B, targets] int64 positions, and the ids that are to follow them.
        labels: [B, N] int64 the word spoken at each audio token.
        spans: [B, targets, L] bool, the position of the audio at the end of the target's word.
    """

    mel: Tensor
    counts: Tensor
    ids: Tensor
    places: Tensor
    queries: Tensor
    targets: Tensor
    labels: Tensor
    spans: Tensor


class Example(NamedTuple):
    """One row before padding.

    Attributes:
        ids: the whole sequence, compact; ``start`` is the first target.
        words: of each id the number of its word in the piece, or −1.
    """

    mel: Tensor
    said: list[Word]
    ids: list[int]
    start: int
    words: list[int]


def token_times(count: int) -> NDArray[np.float64]:
    """Seconds at the middle of each audio token: every second starts anew."""
    token = np.arange(count)
    return token // CHUNK_TOKENS + (token % CHUNK_TOKENS) * TOKEN_SECONDS + TOKEN_SECONDS / 2


def build(
    tokenizer: Tokenizer,
    said: Sequence[Word],
    audio_count: int,
    *,
    forced: bool = True,
    context: str = "",
    committed: int = 0,
) -> tuple[list[int], int, list[int]]:
    """The sequence, its first target, and of each id the number of its word.

    Args:
        committed: so many words belong to the prompt.
    """
    ids = tokenizer.prompt(audio_count, context, forced=forced)
    start = len(ids)
    if not forced:
        ids = ids + tokenizer.language
    words = [-1] * len(ids)
    for number, word in enumerate(said):
        tokens = (tokenizer.rest if number else tokenizer.first)[word.text]
        ids, words = ids + tokens, words + [number] * len(tokens)
        if number + 1 == committed:
            start = len(ids)
    return [*ids, tokenizer.end], start, [*words, -1]


class Batches:
    """Draws batches; batch ``number`` is the same in every run with the same seed and pools."""

    def __init__(self, pool: Pool | Mixture, tokenizer: Tokenizer, recipe: QwenRecipe) -> None:
        self._pool, self._tokenizer, self._recipe = pool, tokenizer, recipe
        self._noise = Noise()

    def shape(self, number: int) -> Shape:
        recipe = self._recipe
        short, usual, long = recipe.shapes
        done = number / recipe.steps
        if done < recipe.short_until:
            return short
        often = number % recipe.long_every == recipe.long_every - 1
        return long if done > recipe.long_from and often else usual

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((self._recipe.seed, number))
        shape = self.shape(number)
        examples: list[Example] = []
        while len(examples) < shape.clips:
            example = self._draw(shape.seconds * rng.uniform(0.6, 1.0), rng)
            targets = len(example.ids) - example.start
            if len(example.ids) <= shape.tokens and targets <= shape.targets:
                examples.append(example)
        return _collate(examples, shape, self._tokenizer)

    def _draw(self, seconds: float, rng: Generator) -> Example:
        acoustics = self._recipe.acoustics
        clip = draw_scene(self._pool, seconds, acoustics, self._noise, rng)
        audio, said = _cut(clip.audio, clip.words, rng)
        draws = (1, acoustics, rng)
        mel = log_mel(
            torch.from_numpy(audio),
            draw_tilts(*draws)[0],
            draw_channels(*draws)[0],
            draw_filterbanks(*draws)[0],
        )
        stretch_words(mel, said, acoustics.stretched, rng)
        mask_bands(mel[None], rng)
        context = ""
        if rng.random() < CONTEXT:
            context = " ".join(rng.choice(VOCABULARY, int(rng.integers(1, 9))))
        committed = int(rng.integers(0, len(said) + 1)) if rng.random() < COMMITTED else 0
        ids, start, words = build(
            self._tokenizer,
            said,
            audio_tokens(len(mel)),
            forced=rng.random() < FORCED,
            context=context,
            committed=committed,
        )
        return Example(mel, said, ids, start, words)


def _cut(
    audio: NDArray[np.float32], words: Sequence[Word], rng: Generator
) -> tuple[NDArray[np.float32], list[Word]]:
    """A piece of a clip, and the words that are wholly in it."""
    least = int(LEAST_SECONDS * SAMPLE_RATE) + HOP
    first, after = 0, len(audio)
    if rng.random() >= WHOLE:
        if words and rng.random() < EARLY:
            after = min(after, max(least, int((_phrase_end(words) + PAUSE) * SAMPLE_RATE)))
        after = int(rng.uniform(LEAST_SECONDS * SAMPLE_RATE, after))
    elif words and rng.random() < TRIMMED:
        after = min(after, int((words[-1].end + rng.uniform(0.02, 0.8)) * SAMPLE_RATE))
    if rng.random() < MID_STREAM and after > 3 * SAMPLE_RATE:
        first = int(rng.uniform(0.2 * SAMPLE_RATE, after - 2 * SAMPLE_RATE))
    after = max(after, first + least)
    if after > len(audio):
        first, after = 0, min(max(after - first, least), len(audio))
    begin, end = first / SAMPLE_RATE, after / SAMPLE_RATE
    said = [
        Word(word.text, word.start - begin, word.end - begin)
        for word in words
        if word.start >= begin - SLACK and word.end <= end
    ]
    return audio[first:after], said


def _phrase_end(words: Sequence[Word]) -> float:
    """The second at which the first phrase ends."""
    for word, after in pairwise(words):
        if after.start - word.end >= PAUSE:
            return word.end
    return words[-1].end


def _collate(examples: Sequence[Example], shape: Shape, tokenizer: Tokenizer) -> Batch:
    rows = len(examples)
    chunks = math.ceil(shape.seconds * SAMPLE_RATE / HOP / CHUNK_FRAMES)
    mel = torch.zeros(rows, chunks * CHUNK_FRAMES, N_MELS)
    counts = torch.tensor([audio_tokens(len(example.mel)) for example in examples])
    ids = torch.zeros(rows, shape.tokens, dtype=torch.int64)
    places = torch.full((rows, shape.tokens), -1)
    queries = torch.zeros(rows, shape.targets, dtype=torch.int64)
    targets = torch.full((rows, shape.targets), IGNORED)
    labels = torch.full((rows, chunks * CHUNK_TOKENS), IGNORED)
    spans = torch.zeros(rows, shape.targets, shape.tokens, dtype=torch.bool)
    for row, example in enumerate(examples):
        count, length = int(counts[row]), len(example.ids)
        mel[row, : len(example.mel)] = example.mel
        ids[row, :length] = torch.tensor(example.ids)
        first = example.ids.index(tokenizer.audio)
        places[row, first : first + count] = torch.arange(count)
        asked = length - example.start
        queries[row, :asked] = torch.arange(example.start - 1, length - 1)
        targets[row, :asked] = ids[row, example.start : length]
        labels[row, :count] = torch.from_numpy(_labels(example.said, count))
        times = token_times(count)
        for target, word in enumerate(example.words[example.start :]):
            if word >= 0:
                end = example.said[word].end
                inside = (times >= end + ENDING[0]) & (times < end + ENDING[1])
                spans[row, target, first : first + count] = torch.from_numpy(inside)
    return Batch(mel, counts, ids, places, queries, targets, labels, spans)


def _labels(said: Sequence[Word], count: int) -> NDArray[np.int64]:
    times = token_times(count)
    labels = np.full(count, NO_WORD, np.int64)
    for text, start, end in said:
        labels[(times >= start) & (times < end)] = VOCABULARY.index(text)
    return labels
