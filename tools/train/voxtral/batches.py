"""Training batches of Voxtral: streams with their inputs, targets and auxiliary labels."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ..augment import draw_channels, draw_filterbanks, draw_tilts, mask_bands, stretch_words
from ..clips import Noise, draw_scene
from ..grammar import WORDS
from ..mel import HOP
from ..pool import Mixture, Pool
from ..speech import Word
from .config import VoxtralRecipe
from .features import log_mel
from .stream import (
    FLUSH,
    LEFT_PAD,
    PAD,
    POSITION_SAMPLES,
    POSITION_SECONDS,
    expected_outputs,
    pad_audio,
    prompt,
)

__all__ = ["IGNORED", "NO_WORD", "Batch", "Batches", "auxiliary_labels"]

IGNORED = -100  # target without loss, as in torch
NO_WORD = len(WORDS)  # auxiliary class of positions without a word
LEFT_FRAMES = LEFT_PAD * POSITION_SAMPLES // HOP
ENDED_FOR = 4  # positions (0.32 s) for which a word counts as just ended

LATE_WORDS = 0.04
WRONG_INPUTS = 0.03  # so that decoding survives its own slips
FULL_LENGTH = 0.75  # part of the clips that fill their stream


class Batch(NamedTuple):
    """B streams of P positions.

    Attributes:
        mel: [B, 8 P, N_MELS] float32.
        inputs, targets: [B, P] int64; targets are ``IGNORED`` outside the audio and its flush.
        delays: [B] int64, in positions.
        labels: [B, P, 2] int64: the word that is spoken now, and the one that has just ended.
    """

    mel: Tensor
    inputs: Tensor
    targets: Tensor
    delays: Tensor
    labels: Tensor


def auxiliary_labels(words: Sequence[Word], count: int) -> NDArray[np.int64]:
    """[count, 2] numbers of words in ``WORDS`` (or ``NO_WORD``) by position of the audio."""
    labels = np.full((count, 2), NO_WORD, np.int64)
    for word in words:
        number = WORDS.index(word.text)
        first = LEFT_PAD + math.floor(word.start / POSITION_SECONDS + 0.5)
        last = LEFT_PAD + math.floor(word.end / POSITION_SECONDS)
        labels[first : last + 1, 0] = number
        labels[last : last + ENDED_FOR, 1] = number
    return labels


class Batches:
    """Draws batches from a pool; batch ``number`` is the same in every run with the same seed.

    Args:
        tokens: text ids of each word.

    Raises:
        ValueError: the recipe's streams are too short.
    """

    def __init__(
        self, pool: Pool | Mixture, tokens: Mapping[str, Sequence[int]], recipe: VoxtralRecipe
    ) -> None:
        self._pool, self._tokens, self._recipe = pool, tokens, recipe
        self._text_ids = np.array([token for ids in tokens.values() for token in ids])
        self._noise = Noise()
        needed = LEFT_PAD + max(recipe.delays) + FLUSH + 25  # 2 s of audio
        if recipe.positions < needed:
            raise ValueError(f"a stream needs {needed} positions, not {recipe.positions}")

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((self._recipe.seed, number))
        drawn = [self._draw_stream(rng) for _ in range(self._recipe.batch)]
        audio, inputs, targets, delays, labels = (
            torch.from_numpy(np.stack(column))
            for column in zip(*(row for _, row in drawn), strict=True)
        )
        draws = (len(drawn), self._recipe.acoustics, rng)
        mel = log_mel(audio, draw_tilts(*draws), draw_channels(*draws), draw_filterbanks(*draws))
        for stream, (words, _) in zip(mel, drawn, strict=True):
            stretch_words(stream, words, self._recipe.acoustics.stretched, rng, LEFT_FRAMES)
        mask_bands(mel, rng)
        return Batch(mel, inputs, targets, delays, labels)

    def _draw_stream(self, rng: Generator) -> tuple[list[Word], tuple[NDArray[np.generic], ...]]:
        """Words, and one row: audio, inputs, targets, delay, labels."""
        positions = self._recipe.positions
        delay = int(rng.choice(self._recipe.delays))
        room = positions - LEFT_PAD - delay - FLUSH
        length = room if rng.random() < FULL_LENGTH else int(rng.integers(room // 4 + 1, room))
        acoustics = self._recipe.acoustics
        clip = draw_scene(self._pool, length * POSITION_SECONDS, acoustics, self._noise, rng)
        outputs = expected_outputs(
            clip.words, self._tokens, length + FLUSH, late=LATE_WORDS, rng=rng
        )
        first = LEFT_PAD + delay  # position of the first output
        inputs = np.full(positions, PAD, np.int64)
        targets = np.full(positions, IGNORED, np.int64)
        inputs[: first + 1] = prompt(delay)
        inputs[first + 1 : first + len(outputs)] = self._disturb(outputs[:-1], rng)
        targets[first : first + len(outputs)] = outputs
        stream = np.zeros(positions * POSITION_SAMPLES, np.float32)
        padded = pad_audio(clip.audio, delay)
        stream[: len(padded)] = padded
        labels = auxiliary_labels(clip.words, positions)
        return clip.words, (stream, inputs, targets, np.array(delay), labels)

    def _disturb(self, outputs: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
        """``outputs`` with a few replaced by [STREAMING_PAD] or a random text id."""
        wrong = np.where(
            rng.random(len(outputs)) < 0.6, PAD, rng.choice(self._text_ids, len(outputs))
        )
        return np.where(rng.random(len(outputs)) < WRONG_INPUTS, wrong, outputs)
