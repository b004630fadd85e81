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

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from voxfast.cache import SlidingKVCache
from voxfast.models.counts import PassCount
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES, Qwen3ASRArgs
from voxfast.nn import linears
from voxfast.ops import (
    Rotary,
    gelu,
    linear,
    rotary_tables,
    rotate,
    sliding_attention,
    swiglu,
)

__all__ = ["DecoderState", "Qwen3ASR", "WindowState"]

Pair = tuple[mx.array, mx.array]


@dataclass
class WindowState:
    """Keys and values of the encoded chunks of one window: per layer [1, H, S, D]."""

    layers: list[Pair] = field(default_factory=list)


@dataclass
class DecoderState:
    """Keys and values of one stream's prompt, audio and text, per layer, from position 0."""

    caches: list[SlidingKVCache]

    @property
    def offset(self) -> int:
        """Number of stored positions."""
        return self.caches[0].offset

    def copy(self) -> "DecoderState":
        """A copy of the state that shares the rings until one of the two is updated.

        A ring is updated in place only while no copy shares it.
        """
        return DecoderState([copy(cache) for cache in self.caches])

    def keep(self, positions: int) -> None:
        """Drop all but the first positions."""
        for cache in self.caches:
            cache.trim(cache.offset - positions)

    def arrays(self) -> list[mx.array]:
        """All arrays that a step must evaluate."""
        return [array for cache in self.caches for array in cache.state]


class Qwen3ASR:
    """The network of a loaded checkpoint, with constant weights.

    Args:
        network: ``mlx_qwen3_asr.model.Qwen3ASRModel`` with its weights.
        args: its sizes.

    Attributes:
        decoder, lm_head: the modules of the text decoder, and its last product.
        pass_count: of the decoder's passes.
    """

    def __init__(self, network: Any, args: Qwen3ASRArgs) -> None:
        self.args = args
        self._tower = network.audio_tower
        self.decoder = network.model
        self.lm_head = self.decoder.embed_tokens.as_linear if args.text.tied else network.lm_head
        self.pass_count = PassCount()

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the activations: that of the norms, which are never packed."""
        dtype: mx.Dtype = self.decoder.norm.weight.dtype
        return dtype

    # ---- audio --------------------------------------------------------------------------

    def stem(self, mel: mx.array, *, alone: bool = False) -> mx.array:
        """Conv stem of complete chunks and an optional incomplete one at the end.

        An incomplete chunk is padded with zeros to a complete one, unless it is all the audio.

        Args:
            mel: [T, n_mels], normalised log-mel frames from the start of a chunk on; T ≥ 1.
            alone: whether these are the first frames of the audio.

        Returns:
            [L, dim], 13 tokens for every 100 frames, with their positions added.
        """
        size = self.args.audio.chunk_frames
        n_whole, rest = divmod(mel.shape[0], size)
        n_tokens = n_whole * self.args.audio.chunk_tokens + -(-rest // TOKEN_FRAMES)
        if rest and not (alone and n_whole == 0):
            mel = mx.pad(mel, [(0, size - rest), (0, 0)])
        size = min(size, mel.shape[0])
        chunks = mel.reshape(-1, size, mel.shape[1])
        # The intermediate results of one chunk fit into a CPU's caches, those of many do not.
        at_once = 1 if mx.default_device() == mx.Device(mx.cpu) else len(chunks)
        tokens = []
        for first in range(0, len(chunks), at_once):
            tokens.append(self._stem(chunks[first : first + at_once]))
            if len(chunks) > at_once:
                mx.eval(tokens)
        return mx.concatenate(tokens)[:n_tokens]

    def _stem(self, chunks: mx.array) -> mx.array:
        """[n, T, n_mels] → [n * tokens of a chunk, dim]."""
        x = chunks.swapaxes(1, 2)[..., None].astype(self.dtype)
        for conv in (self._tower.conv2d1, self._tower.conv2d2, self._tower.conv2d3):
            x = gelu(_conv_by_product(x, conv.weight, conv.bias))
        n, n_freqs, length, channels = x.shape
        x = x.transpose(0, 2, 3, 1).reshape(n, length, channels * n_freqs)
        x = self._tower.conv_out(x) + self._tower.embed_positions(length).astype(x.dtype)
        return x.reshape(n * length, -1)

    def encode(self, x: mx.array, window: WindowState) -> tuple[mx.array, WindowState]:
        """Transformer layers over tokens of one window, and the projection to the decoder.

        The tokens attend to each other and to those in ``window``, but not vice versa. A whole
        window in one call is the model's offline computation.

        Args:
            x: [L, dim] of :meth:`stem`.
            window: the previous chunks of the window.

        Returns:
            [L, output_dim] audio embeddings, and the window including them.
        """
        x = x[None]
        layers = []
        before: Iterable[Pair | None] = window.layers or [None] * len(self._tower.layers)
        for layer, past in zip(self._tower.layers, before, strict=True):
            x, pair = _encoder_layer(layer, x, past)
            layers.append(pair)
        x = self._tower.ln_post(x)
        x = self._tower.proj2(gelu(self._tower.proj1(x)))
        return x.squeeze(0), WindowState(layers)

    # ---- decoder ------------------------------------------------------------------------

    def decoder_state(self) -> DecoderState:
        """An empty state. It grows up to the maximal number of positions of the model."""
        size = self.args.text.max_positions
        return DecoderState(
            [SlidingKVCache(size, max_rows=size) for _ in range(self.args.text.n_layers)]
        )

    def embed(self, tokens: Sequence[int] | mx.array) -> mx.array:
        """[L, dim] embeddings of token ids."""
        ids = tokens if isinstance(tokens, mx.array) else mx.array(list(tokens))
        embeddings: mx.array = self.decoder.embed_tokens(ids)
        return embeddings

    def decode(
        self, x: mx.array, state: DecoderState, query_layers: Sequence[int] = ()
    ) -> tuple[mx.array, list[mx.array]]:
        """The decoder over the next L positions.

        Args:
            x: [L, dim] embeddings.
            state: the stream's state, updated.
            query_layers: layers whose queries are returned.

        Returns:
            [vocab_size] logits of the last position, and the rotated queries
            [1, H, 1, D] of that position in each of the ``query_layers``.
        """
        args = self.args.text
        self.pass_count.note(x.shape[0])
        rotary = rotary_tables(state.offset, x.shape[0], args.head_dim, args.rope_theta)
        x = x[None]
        queries: dict[int, mx.array] = {}
        for i, (layer, cache) in enumerate(zip(self.decoder.layers, state.caches, strict=True)):
            attention = layer.self_attn
            q, k, v = _project(attention, layer.input_layernorm(x))
            if i in query_layers:
                queries[i] = q[:, -1:]
            out = cache.attend(q, k, v, scale=args.head_dim**-0.5, rotary=rotary, traditional=False)
            x = x + attention.o_proj(out.reshape(1, x.shape[1], -1))
            h, mlp = layer.post_attention_layernorm(x), layer.mlp
            x = x + mlp.down_proj(swiglu(*linears(h, mlp.gate_proj, mlp.up_proj)))
        logits = self.lm_head(self.decoder.norm(x[:, -1])).squeeze(0)
        return logits, _rotate_last([queries[i] for i in query_layers], rotary)


def _project(attention: Any, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """[1, L, dim] → q [1, L, H, D], k and v [1, L, H_kv, D], before rotation."""
    q, k, v = (
        y.reshape(1, x.shape[1], -1, attention.head_dim)
        for y in linears(x, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return attention.q_norm(q), attention.k_norm(k), v


def _rotate_last(queries: list[mx.array], rotary: Rotary) -> list[mx.array]:
    """Queries [1, 1, H, D] of the last position, rotated, as [1, H, 1, D] each."""
    if not queries:
        return []
    cos, sin = (table[:, -1:] for table in rotary)
    rotated = rotate(mx.concatenate(queries, axis=1), (cos, sin), traditional=False)
    return [rotated[:, i, :, None] for i in range(len(queries))]


def _encoder_layer(layer: Any, x: mx.array, past: Pair | None) -> tuple[mx.array, Pair]:
    attention = layer.self_attn
    _, length, dim = x.shape
    h = layer.self_attn_layer_norm(x)
    q, k, v = (
        y.reshape(1, length, attention.num_heads, -1)
        for y in linears(h, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    stored = 0 if past is None else past[0].shape[2]
    room = (1, attention.num_heads, length, q.shape[-1])
    keys, values = mx.zeros(room, q.dtype), mx.zeros(room, q.dtype)
    if past is not None:
        keys = mx.concatenate([past[0], keys], axis=2)
        values = mx.concatenate([past[1], values], axis=2)
    out, keys, values = sliding_attention(
        q, k, v, keys, values, stored,
        window=stored + length, scale=attention.head_dim**-0.5, causal=False,
    )  # fmt: skip
    x = x + attention.out_proj(out.reshape(1, length, dim))
    x = x + layer.fc2(gelu(layer.fc1(layer.final_layer_norm(x))))
    if x.dtype == mx.float16:  # as the published encoder does, against overflow
        limit = float(np.finfo(np.float16).max) - 1000.0
        x = mx.clip(x, -limit, limit)
    return x, (keys, values)


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
