"""Voxtral Realtime (arXiv 2602.11298): a causal audio encoder and a decoder in lockstep.

Audio flows through five stages, each with one ``step``; the caller owns its state::

    log-mel (100/s) → conv stem (50/s) → encoder (50/s) → adapter (12.5/s) → decoder

At every position of 80 ms the decoder adds one audio embedding to the embedding of the last
token, and writes one token. Weights are constant after loading, and modules have no state, so
any number of streams can share them.

Dimension letters: B batch, L new positions, T mel frames, D head size.
"""

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxfast.cache import SlidingKVCache
from voxfast.models.voxtral.config import TransformerArgs, VoxtralArgs
from voxfast.nn import linears
from voxfast.ops import Rotary, gelu, linear, rotary_tables, swiglu

__all__ = ["DecoderState", "EncoderState", "Voxtral"]


class Attention(nn.Module):
    def __init__(self, args: TransformerArgs, biases: bool) -> None:
        super().__init__()
        self.head_dim, self.scale = args.head_dim, args.head_dim**-0.5
        kv_dim = args.n_kv_heads * args.head_dim
        self.wq = nn.Linear(args.dim, args.n_heads * args.head_dim, bias=biases)
        self.wk = nn.Linear(args.dim, kv_dim, bias=False)
        self.wv = nn.Linear(args.dim, kv_dim, bias=biases)
        self.wo = nn.Linear(args.n_heads * args.head_dim, args.dim, bias=biases)

    def __call__(self, x: mx.array, cache: SlidingKVCache, rotary: Rotary) -> mx.array:
        batch, length, _ = x.shape
        q, k, v = (
            y.reshape(batch, length, -1, self.head_dim)
            for y in linears(x, self.wq, self.wk, self.wv)
        )
        out = cache.attend(q, k, v, scale=self.scale, rotary=rotary)
        return self.wo(out.reshape(batch, length, -1))


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

    def __call__(self, x: mx.array, cache: SlidingKVCache, rotary: Rotary) -> mx.array:
        x = x + self.attention(self.attention_norm(x), cache, rotary)
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

    def step(self, x: mx.array, tail: mx.array) -> tuple[mx.array | None, mx.array]:
        """Consume [1, T, dim_in]; return [1, T', dim_out] (None if T' = 0) and the new tail."""
        x = mx.concatenate([tail, x], axis=1)
        n_out = (x.shape[1] - self.KERNEL) // self.stride + 1
        if n_out <= 0:
            return None, x
        # Each output is one product with KERNEL neighbouring frames: a row of an overlapping view.
        _, length, dim = x.shape
        windows = mx.as_strided(
            x, (1, n_out, self.KERNEL * dim), (length * dim, self.stride * dim, 1)
        )
        out = linear(windows, self.weight.reshape(len(self.weight), -1), bias=self.bias)
        return gelu(out), x[:, n_out * self.stride :]


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
        """All arrays that a step must evaluate, so that no graph grows across steps."""
        held = [] if self.frames is None else [self.frames]
        return held + self.tails + [array for cache in self.caches for array in cache.state]


class Encoder(nn.Module):
    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.args = args.encoder
        dim = args.encoder.dim
        self.conv_layers = [CausalConv(args.audio.n_mels, dim, 1), CausalConv(dim, dim, 2)]
        self.layers = [EncoderLayer(args.encoder) for _ in range(args.encoder.n_layers)]
        self.norm = nn.RMSNorm(dim, eps=args.encoder.norm_eps)

    def stem(self, mel: mx.array, tails: list[mx.array]) -> mx.array | None:
        """[1, T, n_mels] → [1, ~T/2, dim]; updates ``tails``. T may be odd."""
        x: mx.array | None = mel
        for i, conv in enumerate(self.conv_layers):
            if x is not None:
                x, tails[i] = conv.step(x, tails[i])
        return x

    def transform(self, x: mx.array, caches: list[SlidingKVCache]) -> mx.array:
        """[1, L, dim] → [1, L, dim]; each frame attends to its window."""
        rotary = rotary_tables(
            caches[0].offset, x.shape[1], self.args.head_dim, self.args.rope_theta
        )
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache, rotary)
        return self.norm(x)


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

    def __call__(
        self, x: mx.array, scale: mx.array, cache: SlidingKVCache, rotary: Rotary
    ) -> mx.array:
        x = x + self.attention(self.attention_norm(x), cache, rotary)
        return x + self.feed_forward(self.ffn_norm(x) * scale)


@dataclass
class DecoderState:
    """The state of one stream's decoder.

    Attributes:
        caches: keys and values of each layer, as long as the window.
        scales: the delay conditioning of each layer, [dim].
    """

    caches: list[SlidingKVCache]
    scales: list[mx.array]

    def arrays(self) -> list[mx.array]:
        """All arrays that a step must evaluate."""
        return [array for cache in self.caches for array in cache.state]


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

    def __call__(self, x: mx.array, state: DecoderState) -> mx.array:
        """[1, L, dim] inputs → [vocab] logits of the last position."""
        rotary = rotary_tables(
            state.caches[0].offset, x.shape[1], self.args.head_dim, self.args.rope_theta
        )
        for layer, scale, cache in zip(self.layers, state.scales, state.caches, strict=True):
            x = layer(x, scale, cache, rotary)
        return self.tok_embeddings.as_linear(self.norm(x[:, -1])).squeeze(0)


class Voxtral(nn.Module):
    def __init__(self, args: VoxtralArgs) -> None:
        super().__init__()
        self.args = args
        self.encoder = Encoder(args)
        self.adapter = Adapter(args)
        self.decoder = Decoder(args)

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
                SlidingKVCache(window, max_rows=max_frames, start=start)
                for _ in self.encoder.layers
            ],
        )

    def decoder_state(self, n_delay: int, max_rows: int, start: int = 0) -> DecoderState:
        """A new state with a delay of ``n_delay`` positions; see :meth:`encoder_state`."""
        window = self.args.decoder.sliding_window
        return DecoderState(
            caches=[
                SlidingKVCache(window, max_rows=max_rows, start=start) for _ in self.decoder.layers
            ],
            scales=self.decoder.delay_scales(n_delay),
        )

    def encode(self, mel: mx.array, state: EncoderState) -> mx.array | None:
        """Log-mel frames to the audio embeddings of complete positions.

        Parity: any split of the frames gives the embeddings of one call over all of them.

        Args:
            mel: [T, n_mels], the next frames of the stream; T ≥ 1.
            state: the stream's state, updated.

        Returns:
            [P, decoder dim] for P complete positions, or None for P = 0.
        """
        x = self.encoder.stem(mel[None].astype(self.dtype), state.tails)
        if x is None:
            return None
        x = self.encoder.transform(x, state.caches)
        if state.frames is not None:
            x = mx.concatenate([state.frames, x], axis=1)
        whole = x.shape[1] // self.args.downsample_factor * self.args.downsample_factor
        state.frames = x[:, whole:] if whole < x.shape[1] else None
        return self.adapter(x[:, :whole]).squeeze(0) if whole else None

    def decode(self, audio: mx.array, tokens: mx.array, state: DecoderState) -> mx.array:
        """One step of the decoder.

        Args:
            audio: [L, decoder dim] audio embeddings of the next L positions.
            tokens: [L] of int32, their input tokens.
            state: the stream's state, updated.

        Returns:
            [vocab_size] logits of the last position.
        """
        return self.decoder((audio + self.decoder.tok_embeddings(tokens))[None], state)
