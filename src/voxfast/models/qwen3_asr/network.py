"""Qwen3-ASR: an audio tower in windows of 8 s, and a decoder that reads audio as a prompt.

Modules and weights are those of ``mlx_qwen3_asr``. This file runs them step by step with state
that the caller owns, so that any number of streams share one model::

    log-mel (100/s) → conv stem (13/s) → windows of the tower → audio embeddings ─┐
    prompt: system, user [audio embeddings], assistant ────────────────────────────┴→ decoder

The conv stem takes chunks of 100 mel frames. Attention is limited to the chunks of one window, and
positions restart with every chunk. In the decoder, all three sections of MRoPE have the same
positions, which is plain split-half RoPE.

Dimension letters: L new positions, S stored positions, T mel frames, H query heads, H_kv KV
heads, D head size.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import mlx.core as mx
import numpy as np

from voxfast.cache import SlidingKVCache
from voxfast.models.counts import PassCount
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES, Qwen3ASRArgs
from voxfast.nn import linears
from voxfast.ops import gelu, linear, rotate, swiglu
from voxfast.rows import History, histories, joined, split

__all__ = ["DecoderRows", "KeptState", "Qwen3ASR", "TowerRows"]

# Of the conv stem's largest intermediate result, so that a CPU's caches hold it: less waits for
# MLX more often, more for memory.
STEM_BYTES = 2 << 20


@dataclass
class KeptState:
    """Keys and values of each layer, from position 0 on.

    Those of one window of the tower, or of one stream's prompt, audio and text in the decoder.
    """

    caches: list[SlidingKVCache]

    @property
    def offset(self) -> int:
        """Number of stored positions."""
        return self.caches[0].offset

    def copy(self) -> "KeptState":
        """A copy of the state that shares the rings until one of the two is updated.

        A ring is updated in place only while no copy shares it.
        """
        return KeptState([copy(cache) for cache in self.caches])

    def keep(self, positions: int) -> None:
        """Drop all but the first positions."""
        for cache in self.caches:
            cache.trim(cache.offset - positions)

    def arrays(self) -> list[mx.array]:
        """All arrays of the state."""
        return [array for cache in self.caches for array in cache.state]


@dataclass(frozen=True, slots=True)
class TowerRows:
    """Chunks of one window, as a part of a pass of the audio tower.

    Attributes:
        mel: [T, n_mels], normalised log-mel frames from the start of a chunk on; T ≥ 1.
        state: of the window: that of :meth:`Qwen3ASR.window_state`, updated by the pass.
        alone: whether these are the first frames of the audio: an incomplete chunk is padded
            with zeros to a complete one, unless it is all the audio.
    """

    mel: mx.array
    state: KeptState
    alone: bool = False


@dataclass(frozen=True, slots=True)
class DecoderRows:
    """One stream's part of a pass of the decoder.

    Attributes:
        inputs: of the next L positions, in their order: token ids, and embeddings [n, dim].
        state: the stream's state, updated by the pass.
        query_layers: layers whose queries are wanted.
    """

    inputs: Sequence[Sequence[int] | mx.array]
    state: KeptState
    query_layers: Sequence[int] = ()

    @property
    def length(self) -> int:
        """The number of positions, L."""
        return sum(map(len, self.inputs))


class Qwen3ASR:
    """The network of a loaded checkpoint, with constant weights.

    Args:
        network: ``mlx_qwen3_asr.model.Qwen3ASRModel`` with its weights.
        args: its sizes.

    Attributes:
        decoder, lm_head: the modules of the text decoder, and its last product.
        kv_bits: of the keys and values of the decoder's new states; see
            :class:`.SlidingKVCache`.
        pass_count: of the decoder's passes.
    """

    def __init__(self, network: Any, args: Qwen3ASRArgs) -> None:
        self.args = args
        self._tower = network.audio_tower
        self.decoder = network.model
        self.lm_head = self.decoder.embed_tokens.as_linear if args.text.tied else network.lm_head
        self.kv_bits: int | None = None
        self.pass_count = PassCount()

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the activations: that of the norms, which are never packed."""
        dtype: mx.Dtype = self.decoder.norm.weight.dtype
        return dtype

    # ---- audio --------------------------------------------------------------------------

    def stem(self, parts: Sequence[tuple[mx.array, bool]]) -> list[mx.array]:
        """Conv stem of complete chunks and, in each part, an optional incomplete one at its end.

        Args:
            parts: ``mel`` and ``alone`` of :class:`TowerRows`.

        Returns:
            [L, dim] of each part, 13 tokens for every 100 frames, with their positions added.
        """
        size = self.args.audio.chunk_frames
        chunks: dict[int, list[mx.array]] = {}  # by their frames
        places = []  # of each part: the frames of its chunks, and its tokens
        for mel, alone in parts:
            n_whole, rest = divmod(len(mel), size)
            n_tokens = n_whole * self.args.audio.chunk_tokens + -(-rest // TOKEN_FRAMES)
            if rest and not (alone and n_whole == 0):
                mel = mx.pad(mel, [(0, size - rest), (0, 0)])
            frames = min(size, len(mel))
            places.append((frames, n_tokens))
            chunks.setdefault(frames, []).append(mel.reshape(-1, frames, mel.shape[1]))
        tokens = {
            frames: split(self._stem_all(mx.concatenate(alike))[None], self._tokens_of(alike))
            for frames, alike in chunks.items()
        }
        return [tokens[frames].pop(0)[0, :n_tokens] for frames, n_tokens in places]

    def _tokens_of(self, parts: Sequence[mx.array]) -> list[int]:
        """The tokens that the conv stem makes of chunks [n, T, n_mels]."""
        return [len(part) * -(-part.shape[1] // TOKEN_FRAMES) for part in parts]

    def _stem_all(self, chunks: mx.array) -> mx.array:
        """[n, T, n_mels] → [n * tokens of a chunk, dim]."""
        at_once = len(chunks)
        if mx.default_device() == mx.Device(mx.cpu):
            channels = self._tower.conv2d1.weight.shape[0]
            largest = chunks.shape[1] * chunks.shape[2] * channels * self.dtype.size // 4
            at_once = max(1, STEM_BYTES // largest)
        tokens = []
        for first in range(0, len(chunks), at_once):
            tokens.append(self._stem(chunks[first : first + at_once]))
            if len(chunks) > at_once:
                mx.eval(tokens)
        return mx.concatenate(tokens)

    def _stem(self, chunks: mx.array) -> mx.array:
        """[n, T, n_mels] → [n * tokens of a chunk, dim]."""
        x = chunks.swapaxes(1, 2)[..., None].astype(self.dtype)
        for conv in (self._tower.conv2d1, self._tower.conv2d2, self._tower.conv2d3):
            x = gelu(_conv_by_product(x, conv.weight, conv.bias))
        n, n_freqs, length, channels = x.shape
        x = x.transpose(0, 2, 3, 1).reshape(n, length, channels * n_freqs)
        x = self._tower.conv_out(x) + self._tower.embed_positions(length).astype(x.dtype)
        return x.reshape(n * length, -1)

    def window_state(self) -> KeptState:
        """An empty state of a window of the tower."""
        audio = self.args.audio
        size = audio.window_frames // audio.chunk_frames * audio.chunk_tokens
        return KeptState(
            [SlidingKVCache(size, max_rows=size, block=size) for _ in self._tower.layers]
        )

    def encode(self, rows: Sequence[TowerRows]) -> list[mx.array]:
        """One pass of the audio tower over the chunks of several windows, of any streams.

        Returns:
            [L, output_dim] audio embeddings of each part; L as of :meth:`stem`.
        """
        tokens = self.stem([(part.mel, part.alone) for part in rows])
        return self.transform(tokens, [part.state for part in rows])

    def transform(self, parts: Sequence[mx.array], states: Sequence[KeptState]) -> list[mx.array]:
        """Transformer layers over tokens of windows, and the projection to the decoder.

        The tokens of a part attend to each other and to those before them in the window, but not
        vice versa. A whole window in one call is the model's offline computation.

        Args:
            parts: [L, dim] of :meth:`stem`.
            states: of their windows, updated; each of them once.

        Returns:
            [L, output_dim] audio embeddings of each part.
        """
        x = joined([part[None] for part in parts])
        lengths = [len(part) for part in parts]
        layers = histories([state.caches for state in states], lengths)
        for layer, history in zip(self._tower.layers, layers, strict=True):
            x = _encoder_layer(layer, x, history)
        x = self._tower.ln_post(x)
        x = self._tower.proj2(gelu(self._tower.proj1(x)))
        return [part[0] for part in split(x, lengths)]

    # ---- decoder ------------------------------------------------------------------------

    def decoder_state(self) -> KeptState:
        """An empty state. It grows up to the maximal number of positions of the model."""
        size = self.args.text.max_positions
        return KeptState(
            [
                SlidingKVCache(size, max_rows=size, kv_bits=self.kv_bits)
                for _ in range(self.args.text.n_layers)
            ]
        )

    def embed(self, tokens: Sequence[int] | mx.array) -> mx.array:
        """[L, dim] embeddings of token ids."""
        ids = tokens if isinstance(tokens, mx.array) else mx.array(list(tokens))
        embeddings: mx.array = self.decoder.embed_tokens(ids)
        return embeddings

    def _embedded(self, rows: Sequence[DecoderRows]) -> mx.array:
        """[R, dim] inputs of all streams, with one look-up for all token ids."""
        pieces = [piece for part in rows for piece in part.inputs]
        ids = [token for piece in pieces if not isinstance(piece, mx.array) for token in piece]
        embedded, first = self.embed(ids or [0]), 0
        if len(ids) == sum(map(len, pieces)):
            return embedded
        parts = []
        for piece in pieces:
            if isinstance(piece, mx.array):
                parts.append(piece)
            else:
                parts.append(embedded[first : first + len(piece)])
                first += len(piece)
        return mx.concatenate(parts)

    def decode(self, rows: Sequence[DecoderRows]) -> tuple[mx.array, list[list[mx.array]]]:
        """One pass of the decoder over the rows of several streams.

        Returns:
            [N, vocab_size] logits of the last positions of the N streams, and for each stream
            the rotated queries [1, H, 1, D] of that position in each of its ``query_layers``.
        """
        args = self.args.text
        x = self._embedded(rows)[None]
        lengths = [part.length for part in rows]
        self.pass_count.note(sum(lengths))
        caches = [part.state.caches for part in rows]
        layers = histories(caches, lengths, args.head_dim, args.rope_theta)
        wanted = {layer for part in rows for layer in part.query_layers}
        queries: dict[int, mx.array] = {}
        for i, (layer, history) in enumerate(zip(self.decoder.layers, layers, strict=True)):
            attention = layer.self_attn
            q, k, v = _project(attention, layer.input_layernorm(x))
            if i in wanted:
                queries[i] = _last(q, lengths)
            out = history.attend(q, k, v, scale=args.head_dim**-0.5, traditional=False)
            x = x + attention.o_proj(out.reshape(1, x.shape[1], -1))
            h, mlp = layer.post_attention_layernorm(x), layer.mlp
            x = x + mlp.down_proj(swiglu(*linears(h, mlp.gate_proj, mlp.up_proj)))
        logits = self.lm_head(self.decoder.norm(_last(x, lengths)[0]))
        return logits, _rotated(queries, layers[0], rows)


def _project(attention: Any, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """[1, R, dim] → q [1, R, H, D], k and v [1, R, H_kv, D], before rotation."""
    q, k, v = (
        y.reshape(1, x.shape[1], -1, attention.head_dim)
        for y in linears(x, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return attention.q_norm(q), attention.k_norm(k), v


def _last(x: mx.array, lengths: Sequence[int]) -> mx.array:
    """[1, R, …] → [1, N, …], the last row of each of N streams."""
    if len(lengths) == 1:
        return x[:, -1:]
    if x.shape[1] == len(lengths):
        return x
    return mx.take(x, mx.array([end - 1 for end in accumulate(lengths)]), axis=1)


def _rotated(
    queries: Mapping[int, mx.array], history: History, rows: Sequence[DecoderRows]
) -> list[list[mx.array]]:
    """For each stream, the queries of its last position in its layers.

    Args:
        queries: by layer, [1, N, H, D], those of N streams.
        history: of the pass.
        rows: of the streams.
    """
    if not queries:
        return [[] for _ in rows]
    assert history.rotary is not None
    cos, sin = (_last(table, history.lengths) for table in history.rotary)
    rotated = rotate(mx.concatenate(list(queries.values())), (cos, sin), traditional=False)
    rotated = rotated[:, :, :, None]
    places = {layer: place for place, layer in enumerate(queries)}
    return [
        [rotated[places[layer], i : i + 1] for layer in part.query_layers]
        for i, part in enumerate(rows)
    ]


def _encoder_layer(layer: Any, x: mx.array, history: History) -> mx.array:
    attention = layer.self_attn
    _, length, dim = x.shape
    h = layer.self_attn_layer_norm(x)
    q, k, v = (
        y.reshape(1, length, attention.num_heads, -1)
        for y in linears(h, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    out = history.attend(q, k, v, scale=attention.head_dim**-0.5, causal=False)
    x = x + attention.out_proj(out.reshape(1, length, dim))
    x = x + layer.fc2(gelu(layer.fc1(layer.final_layer_norm(x))))
    if x.dtype == mx.float16:  # as the published encoder does, against overflow
        limit = float(np.finfo(np.float16).max) - 1000.0
        x = mx.clip(x, -limit, limit)
    return x


def _conv_by_product(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """A 3 × 3 convolution of stride 2 with zero padding: [n, h, w, c] → [n, h', w', c'].

    Computed as one product of a strided view of all patches with the weight: MLX's own
    convolution uses a reference BLAS on Linux CPUs.
    """
    n, height, width, channels = x.shape
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    row = (width + 2) * channels
    patches = mx.as_strided(
        x,
        (n, (height + 1) // 2, (width + 1) // 2, 3, 3 * channels),
        ((height + 2) * row, 2 * row, 2 * channels, row, 1),
    )
    return linear(patches, weight.reshape(len(weight), 3, -1), bias=bias)
