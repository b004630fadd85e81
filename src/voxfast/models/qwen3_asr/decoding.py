"""Decoding of a Qwen3-ASR stream: prompt and settled audio are cached, then text follows."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.network import DecoderRows, KeptState, Qwen3ASR
from voxfast.ops import alignment_frame, greedy
from voxfast.timed import Token

__all__ = ["Decoder", "decode"]

Inputs = list[Sequence[int] | mx.array]
"""Token ids, and embeddings [n, dim], in their order."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What a pass computes for one stream, not evaluated, and the decoder's state after it.

    The attended frame belongs to the query that predicts the token: one step later the heads
    attend elsewhere.
    """

    token: mx.array  # [1] of uint32
    probability: mx.array  # [1] of float32
    logits: mx.array  # [1, vocab_size]
    frame: mx.array  # [1, 1] of int32
    state: KeptState


class Decoder:
    """Keeps the keys of the prompt's head and of unchanged audio; the rest is computed again.

    :meth:`read` and :meth:`write` yield the decoder whenever :func:`decode` has to be called, which
    computes what several of them need in one pass. In a pass of one decoder, the next step is
    prepared before a token is evaluated, since the token is usually written next.

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
        self._inputs: Inputs = []  # of the next pass
        self._last: Token | None = None  # that was predicted
        self._prepared: _Step | None = None  # whose input is the last token
        self._logits: tuple[mx.array, int] | None = None  # [N, vocab_size], and the row for it
        self.n_read = self.n_written = 0

    def read(self, audio: Audio, text: Sequence[int]) -> Generator[Self, None, Token]:
        """Read the audio and the text after it; predict the next token.

        Args:
            audio: of the whole buffer; unchanged embeddings are not read again.
            text: the rest of the prompt, at least one token, and the committed text.
        """
        self._prepared = None
        n_same = min(audio.n_same, self._n_audio)
        inputs: Inputs = [audio.embeddings[n_same:], text]
        if self._state.offset == 0:
            inputs.insert(0, self._head)
        else:
            self._state.keep(len(self._head) + n_same)
        self._n_audio = len(audio.embeddings)
        self._last = None
        self.n_read += sum(map(len, inputs))
        return (yield from self._predict(inputs))

    def write(self, token: int) -> Generator[Self, None, Token]:
        """Append a token; predict the next one."""
        self.n_written += 1
        return (yield from self._predict([[token]]))

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The logits of some tokens, in the place of the one that was predicted last."""
        assert self._logits is not None
        logits, row = self._logits
        return np.array(logits[row][mx.array(tokens)].astype(mx.float32), np.float64)

    def go_back(self, count: int) -> None:
        """Take back the last ``count`` tokens that were written; then :meth:`write` others."""
        self._prepared = None
        self._state.keep(self._state.offset - count)

    def forget(self) -> None:
        """Read all audio again next time: what was read last is not what the stream has heard."""
        self._prepared, self._n_audio = None, 0

    def _predict(self, inputs: Inputs) -> Generator[Self, None, Token]:
        self._inputs = inputs
        yield self
        assert self._last is not None
        return self._last

    # What a pass asks for.

    def _gather(self) -> DecoderRows:
        """The part of the next pass."""
        self._prepared = None  # it shares the rings
        return DecoderRows(self._inputs, self._state, self._layers)

    def _frame(self, queries: Sequence[mx.array], state: KeptState) -> mx.array:
        """The frame that the alignment heads attend to, [1, 1]."""
        keys = [state.caches[layer].state[0] for layer in self._layers]
        return alignment_frame(queries, keys, self._heads, len(self._head), self._n_audio)

    def _absorb(self, last: Token, logits: mx.array, row: int) -> None:
        """Take what the pass has given."""
        self._last, self._logits = last, (logits, row)

    # A pass of this decoder alone.

    def _step(self, rows: DecoderRows) -> _Step:
        """Run the decoder over the next positions; updates their state."""
        logits, (queries,) = self._model.decode([rows])
        return _Step(*greedy(logits), logits, self._frame(queries, rows.state), rows.state)

    def _run(self) -> None:
        """Evaluate token, probability and frame in one synchronisation."""
        step, self._prepared = self._prepared, None
        if step is None or self._last is None or self._inputs != [[self._last.id]]:
            step = self._step(self._gather())
        self._state = step.state
        wanted = (step.token, step.probability, step.frame)
        mx.async_eval(*wanted)  # type: ignore[no-untyped-call]
        following = DecoderRows([self._model.embed(step.token)], step.state.copy(), self._layers)
        self._prepared = self._step(following)
        mx.eval(wanted)
        token, frame = cast(int, step.token.item()), cast(int, step.frame.item())
        last = Token(token, cast(float, step.probability.item()), frame)
        self._absorb(last, step.logits, 0)


def _start_audio(decoders: Sequence[Decoder]) -> None:
    """Start encoding what the pass reads: the host builds its graph meanwhile."""
    audio = [piece for one in decoders for piece in one._inputs if isinstance(piece, mx.array)]
    if audio:
        mx.async_eval(audio)  # type: ignore[no-untyped-call]


def decode(decoders: Sequence[Decoder]) -> None:
    """One pass of the decoder: what each of these has yielded for."""
    _start_audio(decoders)
    if len(decoders) == 1:
        decoders[0]._run()
        return
    rows = [decoder._gather() for decoder in decoders]
    logits, queries = decoders[0]._model.decode(rows)
    tokens, probabilities = greedy(logits)
    frames = [
        decoder._frame(asked, decoder._state)
        for decoder, asked in zip(decoders, queries, strict=True)
    ]
    mx.eval(tokens, probabilities, frames)
    ids = cast(list[int], tokens.tolist())
    likely = cast(list[float], probabilities.tolist())
    for row, decoder in enumerate(decoders):
        last = Token(ids[row], likely[row], cast(int, frames[row].item()))
        decoder._absorb(last, logits, row)
