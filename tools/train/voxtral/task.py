"""What training learns of Voxtral: the next output of every position, and a help on the audio."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from torch import Tensor, nn
from torch.nn import functional

from ..grammar import RARE
from ..pool import Pool
from ..scoring import Score, score
from ..trainer import Losses, dev_clips
from .batches import IGNORED, NO_WORD, Batch
from .config import ModelConfig, VoxtralRecipe
from .decode import transcribe
from .model import VoxtralRealtime
from .stream import PAD
from .tokenizer import word_tokens

__all__ = ["Trainee", "VoxtralTask", "name_tokens"]

PAD_WEIGHT = 0.7  # most targets are [STREAMING_PAD]
DEV_DELAY = 6  # positions, 480 ms


class Trainee(nn.Module):
    """The model, and the auxiliary head that only exists in training.

    The head reads from the audio embedding which word is being spoken and which one has just
    ended. Without it no word was learnt in the first 622 steps of voxtral-numbers, with it the
    same model did; see README.md.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = VoxtralRealtime(config)
        self.head = nn.Linear(config.decoder.dim, 2 * (NO_WORD + 1))
        nn.init.normal_(self.head.weight, std=0.05)

    def forward(self, mel: Tensor, inputs: Tensor, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the outputs [B, P, vocab_size] and of the labels [B, P, 2, words + 1]."""
        logits, audio = self.model(mel, inputs, delays)
        return logits, self.head(audio).unflatten(-1, (2, -1))


def name_tokens(tokenizer: Tekkenizer, words: Sequence[str]) -> list[int]:
    """Tokens that names have, and no other word of ``words``."""
    tokens = word_tokens(tokenizer, words)
    of_names = {token for word in words if word in RARE for token in tokens[word]}
    return sorted(of_names.difference(*(tokens[word] for word in words if word not in RARE)))


class VoxtralTask:
    """Cross-entropy of the outputs, and of the auxiliary labels, which leads at first and fades."""

    batch_type: Any = Batch

    def __init__(
        self, recipe: VoxtralRecipe, tokenizer: Tekkenizer, dev_pools: Mapping[str, Pool]
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.trainee = Trainee(recipe.model)
        self._tokenizer = tokenizer
        self._dev = {name: dev_clips(pool, recipe) for name, pool in dev_pools.items()}
        self._weights = torch.ones(recipe.model.vocab_size, device=recipe.device)
        self._weights[PAD] = PAD_WEIGHT
        # Logit adjustment (Menon et al., ICLR 2021): what is added here in training alone is what
        # the logits are lower by, as if names had been so much rarer.
        self._rarer = torch.zeros(recipe.model.vocab_size, device=recipe.device)
        self._rarer[name_tokens(tokenizer, recipe.words)] = math.log(recipe.rarer)

    def losses(self, forward: Any, batch: Batch, done: float) -> Losses:
        logits, labels = forward(batch.mel, batch.inputs, batch.delays)
        outputs = functional.cross_entropy(
            self.adjusted(logits.float(), batch.inputs).flatten(0, 1),
            batch.targets.flatten(),
            self._weights,
            ignore_index=IGNORED,
        )
        words = functional.cross_entropy(labels.float().flatten(0, 2), batch.labels.flatten())
        parts = {"outputs": outputs, "auxiliary": words}
        return Losses(outputs + (1.05 - done) * words, parts)

    def adjusted(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """Logits [B, P, vocab_size] as they are learnt: those of names raised, once for each.

        The tokens of a name behind the first one of its own follow from that.
        """
        is_first = self._rarer[inputs] == 0
        return logits + self._rarer * is_first.unsqueeze(-1)

    def evaluate(self, model: VoxtralRealtime) -> dict[str, Score]:
        scores = {}
        for name, clips in self._dev.items():
            heard = transcribe(model, self._tokenizer, [audio for audio, _ in clips], DEV_DELAY)
            scores[name] = score(zip([words for _, words in clips], heard, strict=True))
        return scores
