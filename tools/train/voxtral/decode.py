"""Greedy streaming decoding, in float32: the reference for what a checkpoint says."""

from collections.abc import Sequence

import numpy as np
import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from numpy.typing import NDArray

from ..speech import Word
from .attention import KV
from .features import log_mel
from .model import VoxtralRealtime
from .stream import output_count, pad_audio, prompt, read_words

__all__ = ["decode", "transcribe"]


@torch.no_grad()
def decode(
    model: VoxtralRealtime, audios: Sequence[NDArray[np.float32]], delay: int
) -> list[list[int]]:
    """Outputs k = 0 … of each of the ``audios`` ([N] float32, 16 kHz), decoded side by side.

    The audios are padded to the longest one. That changes no output, because no position sees
    a later one; the outputs beyond an audio's own end are dropped.
    """
    longest = max(len(audio) for audio in audios)
    padded = np.stack([pad_audio(_extend(audio, longest), delay) for audio in audios])
    embeddings = model.embed_audio(log_mel(torch.from_numpy(padded)))
    condition = model.delay_embedding(torch.tensor([delay]))
    caches: list[KV | None] = [None] * len(model.layers)
    inputs = prompt(delay)
    tokens = torch.zeros(len(audios), dtype=torch.int64)
    outputs = []
    for position, audio in enumerate(embeddings.unbind(1)):
        if position < len(inputs):
            tokens = torch.full_like(tokens, inputs[position])
        logits = model.step(audio, tokens, position, condition, caches)
        tokens = logits.argmax(-1)
        if position >= len(inputs) - 1:
            outputs.append(tokens)
    rows: list[list[int]] = torch.stack(outputs, dim=1).tolist()
    return [row[: output_count(len(audio))] for row, audio in zip(rows, audios, strict=True)]


def transcribe(
    model: VoxtralRealtime,
    tokenizer: Tekkenizer,
    audios: Sequence[NDArray[np.float32]],
    delay: int,
) -> list[list[Word]]:
    """The words of each of the ``audios``; their ends are the times of their markers."""
    outputs = decode(model, audios, delay)
    return [read_words(row, tokenizer.decode) for row in outputs]


def _extend(audio: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    return np.pad(audio, (0, length - len(audio)))
