"""Voxtral Realtime (arXiv 2602.11298): a causal audio encoder and a decoder in lockstep.

Audio flows through five stages, each with one ``step``; the caller owns its state::

    log-mel (100/s) → conv stem (50/s) → encoder (50/s) → adapter (12.5/s) → decoder

At every position of 80 ms the decoder adds one audio embedding to the embedding of the last
token, and writes one token. Weights are constant after loading, and modules have no state, so
any number of streams can share them. A pass takes rows of any streams: products, norms and
activations see one array of all rows, attention the part of each stream.

Dimension letters: B batch, L new positions, T mel frames, D head size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxfast.cache import SlidingKVCache
from voxfast.models.counts import PassCount
from voxfast.models.voxtral.config import TransformerArgs, VoxtralArgs
from voxfast.nn import linears
from voxfast.ops import gelu, linear, swiglu
from voxfast.rows import History, histories, joined, split

__all__ = ["DecoderRows", "DecoderState", "EncoderState", "Voxtral"]


Launch = Callable[[mx.array], None]


def _leave_lazy(x: mx.array) -> None:
    """Launch nothing: the array is computed with what follows from it."""


class Attention(nn.Module):
    def __init__(self, args: TransformerArgs, biases: bool) -> None:
        super().__init__()
        self.head_dim, self.scale = args.head_dim, args.head_dim**-0.5
        kv_dim = args.n_kv_heads * args.head_dim
        self.wq = nn.Linear(args.dim, args.n_heads * args.head_dim, bias=biases)
        self.wk = nn.Linear(args.dim, kv_dim, bias=False)
        self.wv = nn.Linear(args.dim, kv_dim, bias=biases)
        self.wo = nn.Linear(args.n_heads * args.head_dim, args.dim, bias=biases)

    def __call__(self, x: mx.array, history: History) -> mx.array:
        rows = x.shape[1]
        q, k, v = (
            y.reshape(1, rows, -1, self.head_dim) for y in linears(x, self.wq, self.wk, self.wv)
        )
        out = history.attend(q, k, v, scale=self.scale)
        return self.wo(out.reshape(1, rows, -1))


class FeedForward(nn.Module):
    """SwiGLU; w1 is the gate, w3 the value, w2 the output projection."""

    def __init__(self, args: TransformerArgs, biases: bool) -> None:
        super().__init__()
        self.w1 = nn.Linear(args.dim, args.hidden_dim, bias=False)
        self.w2 = nn.Linear(args.hidden_dim, args.dim, bias=biases)
        self.w3 = nn.Linear(args.dim, args.hidden_dim, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.w2(swiglu(*linears(x, self.w1, self.w3)))


class EncoderLayer(nn.Module):
    def __init__(self, args: TransformerArgs) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.attention = Attention(args, biases=True)
        self.ffn_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.feed_forward = FeedForward(args, biases=True)

    def __call__(self, x: mx.array, history: History) -> mx.array:
        x = x + self.attention(self.attention_norm(x), history)
        return x + self.feed_forward(self.ffn_norm(x))


class CausalConv(nn.Module):
    """A causal convolution over time, with left padding of ``kernel - stride``.

    Parity: any split of the frames gives the padded batch convolution. The tail is the input
    that the next output needs, including frames left over by the stride.
    """

    KERNEL = 3

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = mx.zeros((dim_out, self.KERNEL, dim_in))
        self.bias = mx.zeros((dim_out,))

    def tail(self) -> mx.array:
        """The left padding: [1, kernel - stride, dim_in] zeros."""
        shape = (1, self.KERNEL - self.stride, self.weight.shape[2])
        return mx.zeros(shape, dtype=self.weight.dtype)

    def windows(self, x: mx.array, tails: mx.array) -> tuple[mx.array, mx.array]:
        """Consume [S, T, dim_in]; return the rows [S, T', KERNEL dim_in] and the new tails."""
        x = mx.concatenate([tails, x], axis=1)
        streams, length, dim = x.shape
        n_out = max(0, (length - self.KERNEL) // self.stride + 1)
        # Each output is one product with KERNEL neighbouring frames: a row of an overlapping view.
        strides = (length * dim, self.stride * dim, 1)
        rows = mx.as_strided(x, (streams, n_out, self.KERNEL * dim), strides)
        return rows, x[:, n_out * self.stride :]

    def __call__(self, rows: mx.array) -> mx.array:
        """[S, R, KERNEL dim_in] → [S, R, dim_out]."""
        return gelu(linear(rows, self.weight.reshape(len(self.weight), -1), bias=self.bias))


@dataclass
class EncoderState:
    """The state of one stream's encoder.

    Attributes:
        tails: of the two convolutions.
        caches: keys and values of each layer, as long as the window.
        frames: [1, < downsample_factor, dim], encoder output of an incomplete position.
    """

    tails: list[mx.array]
    caches: list[SlidingKVCache]
    frames: mx.array | None = None

    def arrays(self) -> list[mx.array]:
        """All arrays of the state."""
        held = [] if self.frames is None else [self.frames]
        return held + self.tails + [array for cache in self.caches for array in cache.state]

    def copy(self) -> "EncoderState":
        """That of another stream, which goes on from here."""
        return EncoderState([*self.tails], [cache.copy() for cache in self.caches], self.frames)

    @property
    def phase(self) -> tuple[int, ...]:
        """The lengths of the tails; streams in one phase get as many frames from as many."""
        return tuple(tail.shape[1] for tail in self.tails)


class Encoder(nn.Module):
    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.args = args.encoder
        dim = args.encoder.dim
        self.conv_layers = [CausalConv(args.audio.n_mels, dim, 1), CausalConv(dim, dim, 2)]
        self.layers = [EncoderLayer(args.encoder) for _ in range(args.encoder.n_layers)]
        self.norm = nn.RMSNorm(dim, eps=args.encoder.norm_eps)

    def stem(self, mels: mx.array, states: Sequence[EncoderState]) -> mx.array:
        """[S, T, n_mels] of S streams in one phase → [S, ~T/2, dim]; updates the tails.

        T may be odd.
        """
        x = mels
        for i, conv in enumerate(self.conv_layers):
            rows, tails = conv.windows(x, stacked([state.tails[i] for state in states]))
            for state, tail in zip(states, unstacked(tails), strict=True):
                state.tails[i] = tail
            x = conv(rows) if rows.shape[1] else mx.zeros((len(rows), 0, self.args.dim), x.dtype)
        return x

    def transform(
        self,
        parts: Sequence[mx.array],
        states: Sequence[EncoderState],
        launch: Launch = _leave_lazy,
    ) -> mx.array:
        """[S, L, dim] of each batch, L ≥ 1 → their rows; each frame attends to its window.

        Args:
            parts: of batches, S streams each.
            states: of all streams, in this order.
            launch: see :meth:`Voxtral.encode`.
        """
        lengths = [part.shape[1] for part in parts for _ in range(len(part))]
        x = joined([part.reshape(1, -1, part.shape[2]) for part in parts])
        caches = [state.caches for state in states]
        layers = histories(caches, lengths, self.args.head_dim, self.args.rope_theta)
        for layer, history in zip(self.layers, layers, strict=True):
            launch(x)
            x = layer(x, history)
        return self.norm(x)


def stacked(parts: Sequence[mx.array]) -> mx.array:
    """[1, …] of several streams as one batch."""
    return parts[0] if len(parts) == 1 else mx.concatenate(list(parts))


def unstacked(batch: mx.array) -> list[mx.array]:
    """What :func:`stacked` has made one."""
    return [batch] if len(batch) == 1 else cast(list[mx.array], mx.split(batch, len(batch)))


class Adapter(nn.Module):
    """Stacks ``downsample_factor`` encoder frames and projects them to the decoder's size."""

    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.factor = args.downsample_factor
        self.w_in = nn.Linear(args.encoder.dim * self.factor, args.decoder.dim, bias=False)
        self.w_out = nn.Linear(args.decoder.dim, args.decoder.dim, bias=False)

    def __call__(self, frames: mx.array) -> mx.array:
        """[1, 4 P, dim] → [1, P, decoder dim]."""
        stacked = frames.reshape(1, frames.shape[1] // self.factor, -1)
        return self.w_out(gelu(self.w_in(stacked)))


def _complete(
    parts: Sequence[mx.array], states: Sequence[EncoderState], factor: int
) -> tuple[mx.array, list[int]]:
    """The frames of complete positions, and how many each stream has; the others are kept."""
    whole = []
    for frames, state in zip(parts, states, strict=True):
        if state.frames is not None:
            frames = mx.concatenate([state.frames, frames], axis=1)
        end = frames.shape[1] // factor * factor
        state.frames = frames[:, end:] if end < frames.shape[1] else None
        whole.append(frames[:, :end])
    return joined(whole), [frames.shape[1] for frames in whole]


class DelayConditioning(nn.Module):
    """Scales the input of the FFN depending on the delay; constant for a stream."""

    def __init__(self, dim: int, cond_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, cond_dim, bias=False)
        self.up = nn.Linear(cond_dim, dim, bias=False)

    def __call__(self, embedding: mx.array) -> mx.array:
        return 1.0 + self.up(gelu(self.down(embedding)))


class DecoderLayer(nn.Module):
    def __init__(self, args: TransformerArgs, cond_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.attention = Attention(args, biases=False)
        self.ffn_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.feed_forward = FeedForward(args, biases=False)
        self.delay = DelayConditioning(args.dim, cond_dim)

    def __call__(self, x: mx.array, scale: mx.array, history: History) -> mx.array:
        x = x + self.attention(self.attention_norm(x), history)
        return x + self.feed_forward(self.ffn_norm(x) * scale)


@dataclass
class DecoderState:
    """The state of one stream's decoder.

    Attributes:
        caches: keys and values of each layer, as long as the window.
        n_delay: the delay in positions.
        scales: its conditioning of each layer, [dim].
    """

    caches: list[SlidingKVCache]
    n_delay: int
    scales: list[mx.array]

    def arrays(self) -> list[mx.array]:
        """All arrays of the state."""
        return [array for cache in self.caches for array in cache.state]

    def copy(self) -> "DecoderState":
        """That of another stream, which goes on from here."""
        return replace(self, caches=[cache.copy() for cache in self.caches])

    def trim(self, n: int) -> None:
        """Take back the last ``n`` positions; at most as many as one call may bring."""
        for cache in self.caches:
            cache.trim(n)


class Decoder(nn.Module):
    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.args = args.decoder
        self.tok_embeddings = nn.Embedding(args.vocab_size, args.decoder.dim)
        self.layers = [
            DecoderLayer(args.decoder, args.cond_dim) for _ in range(args.decoder.n_layers)
        ]
        self.norm = nn.RMSNorm(args.decoder.dim, eps=args.decoder.norm_eps)

    def delay_scales(self, n_delay: int) -> list[mx.array]:
        """The conditioning of each layer, [dim], for a delay of ``n_delay`` positions."""
        half = self.args.dim // 2
        angles = n_delay * np.exp(-math.log(10000.0) * np.arange(half) / half)
        embedding = mx.array(np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32))
        embedding = embedding.astype(self.norm.weight.dtype)
        return [layer.delay(embedding) for layer in self.layers]

    def __call__(self, x: mx.array, rows: "Sequence[DecoderRows]") -> mx.array:
        """[1, R, dim] inputs of all streams → [outputs of all, vocab] logits."""
        lengths = [len(part.tokens) for part in rows]
        caches = [part.state.caches for part in rows]
        layers = histories(caches, lengths, self.args.head_dim, self.args.rope_theta)
        scales = delays([part.state for part in rows], lengths)
        for layer, scale, history in zip(self.layers, scales, layers, strict=True):
            x = layer(x, scale, history)
        wanted = [part.outputs for part in rows]
        if wanted != lengths:
            x = joined([y[:, -n:] for y, n in zip(split(x, lengths), wanted, strict=True)])
        return self.tok_embeddings.as_linear(self.norm(x[0]))


def delays(states: Sequence[DecoderState], lengths: Sequence[int]) -> list[mx.array]:
    """The conditioning of each layer: [dim] if all streams have one delay, else [R, dim]."""
    if len({state.n_delay for state in states}) == 1:
        return states[0].scales
    each = zip(*(state.scales for state in states), strict=True)
    return [mx.concatenate(list(map(_repeated, layer, lengths))) for layer in each]


def _repeated(row: mx.array, times: int) -> mx.array:
    return mx.broadcast_to(row, (times, row.size))


@dataclass(frozen=True, slots=True)
class DecoderRows:
    """One stream's part of a pass of the decoder.

    Attributes:
        audio: [L, decoder dim] audio embeddings of the next L positions.
        tokens: [L] of int32, their input tokens.
        state: the stream's state, updated by the pass.
        outputs: of how many positions, the last ones, logits are wanted; 1 to L.
    """

    audio: mx.array
    tokens: mx.array
    state: DecoderState
    outputs: int = 1


class Voxtral(nn.Module):
    """The network.

    Attributes:
        kv_bits: of the keys and values of new states; see :class:`.SlidingKVCache`.
    """

    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.args = args
        self.encoder = Encoder(args)
        self.adapter = Adapter(args)
        self.decoder = Decoder(args)
        self.kv_bits: int | None = None
        self.pass_count = PassCount()

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the activations: that of the norms, which are never packed."""
        return self.decoder.norm.weight.dtype

    def encoder_state(self, max_frames: int, start: int = 0) -> EncoderState:
        """A new state for steps of at most ``max_frames`` encoder frames (20 ms each).

        ``start`` is the absolute index of the first frame, for rotary positions.
        """
        window = self.args.encoder.sliding_window
        return EncoderState(
            tails=[conv.tail() for conv in self.encoder.conv_layers],
            caches=[
                SlidingKVCache(window, max_rows=max_frames, start=start, kv_bits=self.kv_bits)
                for _ in self.encoder.layers
            ],
        )

    def decoder_state(self, n_delay: int, max_rows: int, start: int = 0) -> DecoderState:
        """A new state with a delay of ``n_delay`` positions; see :meth:`encoder_state`."""
        window = self.args.decoder.sliding_window
        return DecoderState(
            caches=[
                SlidingKVCache(window, max_rows=max_rows, start=start, kv_bits=self.kv_bits)
                for _ in self.decoder.layers
            ],
            n_delay=n_delay,
            scales=self.decoder.delay_scales(n_delay),
        )

    def encode(
        self,
        mels: Sequence[mx.array],
        states: Sequence[Sequence[EncoderState]],
        launch: Launch = _leave_lazy,
    ) -> list[mx.array | None]:
        """Log-mel frames to the audio embeddings of complete positions, for several streams.

        Parity: any split of the frames gives the embeddings of one call over all of them.

        Args:
            mels: [S, T, n_mels] of each batch of streams, their next frames; T ≥ 1.
            states: of the streams of each batch, in one phase; updated.
            launch: called with the input of each layer, so that the device computes it while the
                graph of the layer is made.

        Returns:
            For each stream [P, decoder dim] for P complete positions, or None for P = 0.
        """
        parts = [
            self.encoder.stem(mel.astype(self.dtype), batch)
            for mel, batch in zip(mels, states, strict=True)
        ]
        lengths = [part.shape[1] for part in parts for _ in range(len(part))]
        streams = [state for batch in states for state in batch]
        if not any(lengths):
            return [None] * len(streams)
        heard = [state for state, length in zip(streams, lengths, strict=True) if length]
        frames = self.encoder.transform([part for part in parts if part.shape[1]], heard, launch)
        factor = self.args.downsample_factor
        if any(length % factor for length in lengths) or any(
            state.frames is not None for state in streams
        ):
            frames, lengths = _complete(split(frames, lengths), streams, factor)
        if not any(lengths):
            return [None] * len(streams)
        ends = list(accumulate(length // factor for length in lengths))
        audio = mx.split(self.adapter(frames)[0], ends[:-1])
        return [part if len(part) else None for part in audio]

    def decode(self, rows: Sequence[DecoderRows]) -> mx.array:
        """One pass of the decoder over the rows of several streams.

        Returns:
            [outputs of all streams, vocab_size] logits.
        """
        audio = mx.concatenate([part.audio for part in rows])
        tokens = mx.concatenate([part.tokens for part in rows])
        self.pass_count.note(len(tokens))
        x = audio + self.decoder.tok_embeddings(tokens)
        return self.decoder(x[None], rows)
