"""Both decoders and Voxtral's encoder as mlx-lm writes models: a baseline of MLX's public ops.

The weights are those of voxfast's own networks. Keys and values are in caches that grow, rotary
angles are MLX's own (float32), only SwiGLU and GELU are compiled. For GPUs: on CPU streams
``mx.compile`` calls the system's compiler.
"""

from functools import partial
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.voxtral.network import CausalConv, Voxtral

__all__ = ["PlainCache", "PlainQwen3ASR", "PlainVoxtral"]


class PlainCache:
    """Keys and values of all positions, in arrays that grow by 256 rows."""

    STEP = 256

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    @property
    def state(self) -> list[mx.array]:
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [B, H_kv, L, D]; returns all that is stored."""
        first, self.offset = self.offset, self.offset + keys.shape[2]
        if self.keys is None or self.values is None or self.offset > self.keys.shape[2]:
            self.keys = _grown(self.keys, keys, self.STEP)
            self.values = _grown(self.values, values, self.STEP)
        self.keys[:, :, first : self.offset] = keys
        self.values[:, :, first : self.offset] = values
        return self.keys[:, :, : self.offset], self.values[:, :, : self.offset]


def _grown(stored: mx.array | None, new: mx.array, step: int) -> mx.array:
    rows = -(-new.shape[2] // step) * step
    room = mx.zeros((*new.shape[:2], rows, new.shape[3]), new.dtype)
    return room if stored is None else mx.concatenate([stored, room], axis=2)


@partial(mx.compile, shapeless=True)
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return cast(mx.array, nn.silu(gate) * up)


def greedy(logits: mx.array) -> tuple[mx.array, mx.array]:
    """The token, and the logarithms of all probabilities."""
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return mx.argmax(logprobs, axis=-1), logprobs


def attend(
    q: mx.array, k: mx.array, v: mx.array, cache: PlainCache, theta: float, traditional: bool
) -> mx.array:
    """q [1, L, H, D], k and v [1, L, H_kv, D] → [1, L, H D]."""
    size, length = q.shape[-1], q.shape[1]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    rope = partial(
        mx.fast.rope, dims=size, traditional=traditional, base=theta, scale=1.0,
        offset=cache.offset,
    )  # fmt: skip
    q, k = rope(q), rope(k)
    keys, values = cache.update(k, v)
    mask = "causal" if length > 1 else None
    out = mx.fast.scaled_dot_product_attention(q, keys, values, scale=size**-0.5, mask=mask)
    return out.transpose(0, 2, 1, 3).reshape(1, length, -1)


class PlainVoxtral:
    """Voxtral's position: log-mel, encoder, adapter, decoder, token."""

    def __init__(self, model: Voxtral) -> None:
        self.model = model
        self.tails = [conv.tail() for conv in model.encoder.conv_layers]
        self.encoder_caches = [PlainCache() for _ in model.encoder.layers]
        self.decoder_caches = [PlainCache() for _ in model.decoder.layers]
        self.window = mx.array(np.hanning(401)[:400].astype(np.float32))
        self.filterbank = mx.ones((201, model.args.audio.n_mels)) / 201
        self.scales = model.decoder.delay_scales(6)

    def state(self) -> list[Any]:
        """All arrays that a step must evaluate."""
        caches = self.encoder_caches + self.decoder_caches
        return [*self.tails, *(cache.state for cache in caches)]

    def position(self, samples: mx.array, token: mx.array) -> tuple[mx.array, mx.array]:
        """[1520] samples, of which 1280 are new, and the last token [1]: the next one."""
        x = self.stem(self.log_mel(samples)[None].astype(self.model.dtype))
        for layer, cache in zip(self.model.encoder.layers, self.encoder_caches, strict=True):
            x = self.encoder_layer(layer, x, cache)
        audio = self.model.encoder.norm(x).reshape(1, 1, -1)
        audio = self.model.adapter.w_out(nn.gelu(self.model.adapter.w_in(audio)))
        return self.decode(audio[0], token)

    def decode(self, audio: mx.array, token: mx.array) -> tuple[mx.array, mx.array]:
        """One audio embedding [1, dim] and the last token [1]: the next one."""
        decoder = self.model.decoder
        x = (audio + decoder.tok_embeddings(token))[None]
        for layer, scale, cache in zip(
            decoder.layers, self.scales, self.decoder_caches, strict=True
        ):
            x = self.decoder_layer(layer, x, scale, cache)
        return greedy(decoder.tok_embeddings.as_linear(decoder.norm(x[:, -1]))[0])

    def log_mel(self, samples: mx.array) -> mx.array:
        frames = mx.as_strided(samples, ((len(samples) - 400) // 160 + 1, 400), (160, 1))
        spectrum = mx.fft.rfft(frames * self.window)
        mel = mx.square(mx.abs(spectrum)) @ self.filterbank
        return (mx.maximum(mx.log10(mx.maximum(mel, 1e-10)), -6.5) + 4.0) / 4.0

    def stem(self, x: mx.array) -> mx.array:
        for i, conv in enumerate(self.model.encoder.conv_layers):
            x, self.tails[i] = self._conv(conv, x, self.tails[i])
        return x

    def _conv(self, conv: CausalConv, x: mx.array, tail: mx.array) -> tuple[mx.array, mx.array]:
        x = mx.concatenate([tail, x], axis=1)
        y = mx.conv1d(x, conv.weight, conv.stride) + conv.bias
        return nn.gelu(y), x[:, y.shape[1] * conv.stride :]

    def encoder_layer(self, layer: Any, x: mx.array, cache: PlainCache) -> mx.array:
        x = x + self._attention(layer.attention, layer.attention_norm(x), cache)
        return x + self._feed_forward(layer.feed_forward, layer.ffn_norm(x))

    def decoder_layer(
        self, layer: Any, x: mx.array, scale: mx.array, cache: PlainCache
    ) -> mx.array:
        x = x + self._attention(layer.attention, layer.attention_norm(x), cache)
        return x + self._feed_forward(layer.feed_forward, layer.ffn_norm(x) * scale)

    def _attention(self, attention: Any, x: mx.array, cache: PlainCache) -> mx.array:
        q, k, v = (
            product(x).reshape(*x.shape[:2], -1, attention.head_dim)
            for product in (attention.wq, attention.wk, attention.wv)
        )
        theta = self.model.args.decoder.rope_theta
        return cast(mx.array, attention.wo(attend(q, k, v, cache, theta, True)))

    def _feed_forward(self, ffn: Any, x: mx.array) -> mx.array:
        return cast(mx.array, ffn.w2(swiglu(ffn.w1(x), ffn.w3(x))))


class PlainQwen3ASR:
    """The text decoder of Qwen3-ASR; it does not tell the attended frame."""

    def __init__(self, model: Qwen3ASR) -> None:
        self.decoder, self.lm_head = model.decoder, model.lm_head
        self.theta = model.args.text.rope_theta
        self.caches = [PlainCache() for _ in self.decoder.layers]

    def state(self) -> list[Any]:
        """All arrays that a step must evaluate."""
        return [cache.state for cache in self.caches]

    def step(self, tokens: mx.array) -> tuple[mx.array, mx.array]:
        """The tokens [L] that come next: the one after them."""
        return self.decode(self.decoder.embed_tokens(tokens)[None])

    def decode(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """[1, L, dim] embeddings: the token after them."""
        for layer, cache in zip(self.decoder.layers, self.caches, strict=True):
            x = self.layer(layer, x, cache)
        return greedy(self.lm_head(self.decoder.norm(x[:, -1]))[0])

    def layer(self, layer: Any, x: mx.array, cache: PlainCache) -> mx.array:
        attention, mlp = layer.self_attn, layer.mlp
        h = layer.input_layernorm(x)
        q, k, v = (
            product(h).reshape(*h.shape[:2], -1, attention.head_dim)
            for product in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = attention.q_norm(q), attention.k_norm(k)
        x = x + attention.o_proj(attend(q, k, v, cache, self.theta, False))
        h = layer.post_attention_layernorm(x)
        return cast(mx.array, x + mlp.down_proj(swiglu(mlp.gate_proj(h), mlp.up_proj(h))))
