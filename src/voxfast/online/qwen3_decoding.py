"""The decoder of a Qwen3-ASR stream: prompt and audio kept, text written behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from voxfast.models.qwen3_asr import Qwen3ASR
from voxfast.online.qwen3_audio import Audio
from voxfast.ops import alignment_frame, greedy

__all__ = ["Decoder", "Prediction"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The next token as the model has it.

    Attributes:
        token: its id.
        probability: 0 to 1.
        frame: the audio token that it attends to, counted from the buffer's first one. It is
            asked of the position that predicts the token; the token's own looks elsewhere.
    """

    token: int
    probability: float
    frame: int


class Decoder:
    """Keys of the prompt's head and of unchanged audio stay; what follows is written anew.

    Args:
        head: tokens before the audio, at least one.
        heads: the alignment heads, layer → query heads.

    Attributes:
        n_read: positions of prompt, audio and committed text that were read so far.
        n_written: tokens that were written so far.
    """

    def __init__(
        self, model: Qwen3ASR, head: Sequence[int], heads: Mapping[int, Sequence[int]]
    ) -> None:
        self._model, self._head = model, list(head)
        self._layers = sorted(heads)
        self._heads = [heads[layer] for layer in self._layers]
        self._state = model.decoder_state()
        self._n_audio = 0
        self.n_read = self.n_written = 0

    def read(self, audio: Audio, text: Sequence[int]) -> Prediction:
        """Read the audio and the text behind it; predict what comes next.

        Args:
            audio: all of the buffer; of its unchanged embeddings those that were read in the
                last call are not read again.
            text: the rest of the prompt, at least one token, and the committed text.
        """
        n_same = min(audio.n_same, self._n_audio)
        parts = [audio.embeddings[n_same:], self._model.embed(text)]
        if self._state.offset == 0:
            parts.insert(0, self._model.embed(self._head))
        else:
            self._state.keep(len(self._head) + n_same)
        self._n_audio = len(audio.embeddings)
        x = mx.concatenate(parts)
        self.n_read += len(x)
        return self._predict(x)

    def write(self, token: int) -> Prediction:
        """Append a token; predict the one after it."""
        self.n_written += 1
        return self._predict(self._model.embed([token]))

    def _predict(self, x: mx.array) -> Prediction:
        """One synchronisation for token, probability and frame."""
        logits, queries = self._model.decode(x, self._state, self._layers)
        keys = [self._state.caches[layer].state[0] for layer in self._layers]
        frame = alignment_frame(queries, keys, self._heads, len(self._head), self._n_audio)
        best, probability = greedy(logits)
        mx.eval(best, probability, frame, self._state.arrays())
        return Prediction(
            cast(int, best.item()), cast(float, probability.item()), cast(int, frame.item())
        )
