"""Decoding of a Qwen3-ASR stream: prompt and settled audio are cached, then text follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.network import DecoderState, Qwen3ASR
from voxfast.ops import alignment_frame, greedy
from voxfast.timed import Token

__all__ = ["Decoder"]


@dataclass(frozen=True, slots=True)
class _Step:
    """The next token, not evaluated yet, and the decoder's state after it.

    The attended frame belongs to the query that predicts the token: one step later the heads
    attend elsewhere.
    """

    token: mx.array
    probability: mx.array
    logits: mx.array
    frame: mx.array
    state: DecoderState


class Decoder:
    """Keeps the keys of the prompt's head and of unchanged audio; the rest is computed again.

    The next step is prepared before a token is evaluated, since the token is usually written
    next.

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
        self._last: int | None = None  # the input token of the prepared step
        self._prepared: _Step | None = None
        self._logits: mx.array | None = None  # [vocab_size], of the token that was predicted last
        self.n_read = self.n_written = 0

    def read(self, audio: Audio, text: Sequence[int]) -> Token:
        """Read the audio and the text after it; predict the next token.

        Args:
            audio: of the whole buffer; unchanged embeddings are not read again.
            text: the rest of the prompt, at least one token, and the committed text.
        """
        self._prepared = None
        n_same = min(audio.n_same, self._n_audio)
        parts = [audio.embeddings[n_same:], self._model.embed(text)]
        if self._state.offset == 0:
            parts.insert(0, self._model.embed(self._head))
        else:
            self._state.keep(len(self._head) + n_same)
        self._n_audio = len(audio.embeddings)
        x = mx.concatenate(parts)
        self.n_read += len(x)
        return self._predict(self._step(x, self._state))

    def write(self, token: int) -> Token:
        """Append a token; predict the next one."""
        self.n_written += 1
        step, self._prepared = self._prepared, None
        if step is None or token != self._last:
            step = self._step(self._model.embed([token]), self._state)
        self._state = step.state
        return self._predict(step)

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The logits of some tokens, in the place of the one that was predicted last."""
        assert self._logits is not None
        return np.array(self._logits[mx.array(tokens)].astype(mx.float32), np.float64)

    def go_back(self, count: int) -> None:
        """Take back the last ``count`` tokens that were written; then :meth:`write` others."""
        self._prepared = None
        self._state.keep(self._state.offset - count)

    def _step(self, x: mx.array, state: DecoderState) -> _Step:
        """Run the decoder over the next positions; updates the state."""
        logits, queries = self._model.decode(x, state, self._layers)
        keys = [state.caches[layer].state[0] for layer in self._layers]
        frame = alignment_frame(queries, keys, self._heads, len(self._head), self._n_audio)
        return _Step(*greedy(logits), logits, frame, state)

    def _predict(self, step: _Step) -> Token:
        """Evaluate token, probability and frame in one synchronisation."""
        wanted = (step.token, step.probability, step.frame)
        mx.async_eval(*wanted, step.state.arrays())  # type: ignore[no-untyped-call]
        self._prepared = self._step(self._model.embed(step.token[None]), step.state.copy())
        mx.eval(wanted)
        self._logits = step.logits
        self._last = cast(int, step.token.item())
        return Token(self._last, cast(float, step.probability.item()), cast(int, step.frame.item()))
