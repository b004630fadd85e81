"""What training learns of Qwen3-ASR: the transcript, and two helps that fade."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..grammar import VOCABULARY
from ..pool import Pool
from ..scoring import Score, score
from ..speech import Word
from ..trainer import Losses, dev_clips
from .batches import IGNORED, Batch
from .config import QwenRecipe
from .features import log_mel
from .model import CHUNK_FRAMES, Outputs, Qwen3ASR, audio_tokens
from .tokenizer import Tokenizer

__all__ = ["QwenTask", "transcribe"]

LONGEST = 90  # tokens of a transcript
LEAST_MASS = 1e-5  # of the attention, before its logarithm


class Trainee(nn.Module):
    """The model, and the auxiliary head that only exists in training."""

    def __init__(self, recipe: QwenRecipe, rows: int) -> None:
        super().__init__()
        self.model = Qwen3ASR(recipe.model, rows)
        self.head = nn.Linear(recipe.model.audio_dim, len(VOCABULARY) + 1)
        nn.init.normal_(self.head.weight, std=0.05)

    def forward(self, *inputs: Tensor) -> tuple[Outputs, Tensor]:
        outputs = self.model(*inputs)
        return outputs, self.head(outputs.states)


class QwenTask:
    """Cross-entropy of the transcript, and, less and less, which word each audio token is of and
    that the guided heads look at the end of the word that is being written."""

    batch_type: Any = Batch

    def __init__(
        self, recipe: QwenRecipe, tokenizer: Tokenizer, dev_pools: Mapping[str, Pool]
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.trainee = Trainee(recipe, len(tokenizer.real))
        self._tokenizer = tokenizer
        self._dev = {name: dev_clips(pool, recipe) for name, pool in dev_pools.items()}

    def losses(self, forward: Any, batch: Batch, done: float) -> Losses:
        outputs, labels = forward(batch.mel, batch.counts, batch.ids, batch.places, batch.queries)
        transcript = functional.cross_entropy(
            outputs.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED
        )
        words = functional.cross_entropy(
            labels.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
        )
        guide = _guide(outputs.attention, batch.spans)
        left = 1 - done
        total = transcript + (left + 0.02) * words + (0.3 * left + 0.03) * guide
        return Losses(total, {"outputs": transcript, "auxiliary": words, "guide": guide})

    def evaluate(self, model: Qwen3ASR) -> dict[str, Score]:
        scores = {}
        for name, clips in self._dev.items():
            heard = transcribe(model, self._tokenizer, [audio for audio, _ in clips])
            scores[name] = score(zip([words for _, words in clips], heard, strict=True))
        return scores


def _guide(attention: Tensor, spans: Tensor) -> Tensor:
    """Minus the logarithm of the attention at the word's end, over tokens that have some."""
    has = spans.any(-1)
    mass = (attention.float() * spans[:, None]).sum(-1).clamp_min(LEAST_MASS)
    total = -(mass.log() * has[:, None]).sum()
    return total / (has.sum() * attention.shape[1]).clamp_min(1)


@torch.no_grad()
def transcribe(
    model: Qwen3ASR, tokenizer: Tokenizer, audios: Sequence[NDArray[np.float32]]
) -> list[list[Word]]:
    """The words of whole clips of one length, greedily, with the language given; the times are NaN.

    Raises:
        ValueError: the clips differ in length.
    """
    if len({len(audio) for audio in audios}) != 1:
        raise ValueError("clips that are transcribed together must have one length")
    mel = torch.stack([log_mel(torch.from_numpy(audio)) for audio in audios])
    frames = mel.shape[1]
    counts = torch.full((len(audios),), audio_tokens(frames))
    mel = functional.pad(mel, (0, 0, 0, -frames % CHUNK_FRAMES))
    audio, _ = model.audio_tower(mel, counts)
    prompt = tokenizer.prompt(int(counts[0]))
    first = prompt.index(tokenizer.audio)
    places = torch.full((1, len(prompt)), -1)
    places[0, first : first + int(counts[0])] = torch.arange(int(counts[0]))
    ids = torch.tensor([prompt]).expand(len(audios), -1)
    x = model.embed(ids, audio, places.expand(len(audios), -1))
    written: list[list[int]] = [[] for _ in audios]
    open_rows = set(range(len(audios)))
    for _ in range(LONGEST):
        states, _ = model.decode(x)
        following = model.logits(states[:, -1])[:, : model.rows].argmax(-1)
        for row in list(open_rows):
            token = int(following[row])
            if token == tokenizer.end:
                open_rows.remove(row)
            else:
                written[row].append(token)
        if not open_rows:
            break
        added = functional.embedding(following, model.embedding())[:, None]
        x = torch.cat((x, added), 1)
    texts = [tokenizer.decode(row).split() for row in written]
    return [[Word(text, math.nan, math.nan) for text in row] for row in texts]
