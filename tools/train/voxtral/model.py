"""Voxtral Realtime in PyTorch, for training and for reference.

Modules are named as in the original checkpoints, so that ``state_dict()`` has exactly the
tensors of ``consolidated.safetensors``. Dimension letters: B batch, T mel or encoder frames,
P decoder positions, H query heads, D head size.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import KV, Attention, Rotary, rotary
from .config import ModelConfig, StackConfig

__all__ = ["EMBEDDING", "VoxtralRealtime"]

EMBEDDING = "mm_streams_embeddings.embedding_module.tok_embeddings.weight"


class FeedForward(nn.Module):
    """SwiGLU: w1 gates, w3 goes up, w2 comes down."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=config.biases)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return y


class Layer(nn.Module):
    """A transformer layer of the encoder, or of the decoder, which also knows its delay."""

    def __init__(self, config: StackConfig, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.dim, norm_eps)
        self.feed_forward = FeedForward(config)
        if config.delay_rank:
            self.ada_rms_norm_t_cond = nn.Sequential(
                nn.Linear(config.dim, config.delay_rank, bias=False),
                nn.GELU(),
                nn.Linear(config.delay_rank, config.dim, bias=False),
            )

    def forward(self, x: Tensor, rows: Rotary, delay: Tensor | None = None) -> Tensor:
        """x [B, L, dim]; ``delay`` [B, dim] from ``delay_embedding``, decoder only."""
        x = x + self.attention(self.attention_norm(x), rows)
        return self._feed(x, delay)

    def step(self, x: Tensor, rows: Rotary, delay: Tensor, cache: KV | None) -> tuple[Tensor, KV]:
        """One position, x [B, 1, dim]; returns the output and the cache for the next one."""
        attended, cache = self.attention.step(self.attention_norm(x), rows, cache)
        return self._feed(x + attended, delay), cache

    def _feed(self, x: Tensor, delay: Tensor | None) -> Tensor:
        normed = self.ffn_norm(x)
        if delay is not None:
            normed = normed * (1 + self.ada_rms_norm_t_cond(delay)[:, None])
        y: Tensor = x + self.feed_forward(normed)
        return y


class CausalConv(nn.Module):
    """Convolution of width 3 over [B, channels, T] with all of its padding on the left."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.padding = 3 - stride
        self.conv = nn.Conv1d(channels_in, channels_out, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(functional.pad(x, (self.padding, 0)))
        return y


class Transformer(nn.Module):
    """The encoder's layers and final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stack = config.encoder
        self.layers = nn.ModuleList(Layer(stack, config.norm_eps) for _ in range(stack.n_layers))
        self.norm = nn.RMSNorm(stack.dim, config.norm_eps)

    def forward(self, x: Tensor, rows: Rotary) -> Tensor:
        for layer in self.layers:
            x = layer(x, rows)
        y: Tensor = self.norm(x)
        return y


class WhisperEncoder(nn.Module):
    """Log-mel [B, T, n_mels] -> [B, T / 2, dim]; no output sees a later input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder.dim
        self.config = config
        self.conv_layers = nn.ModuleList(
            [CausalConv(config.n_mels, dim, 1), CausalConv(dim, dim, 2)]
        )
        self.transformer = Transformer(config)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel.transpose(1, 2)
        for conv in self.conv_layers:
            x = functional.gelu(conv(x))
        x = x.transpose(1, 2).float()  # under autocast the residual stream stays in float32
        head_dim, theta = self.config.encoder.head_dim, self.config.rope_theta
        rows = rotary(range(x.shape[1]), head_dim, theta, x.device)
        y: Tensor = self.transformer(x, rows)
        return y


class AudioEmbedding(nn.Module):
    """Encoder, adapter, and the token embedding that lives beside them in the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stacked, dim = config.downsample * config.encoder.dim, config.decoder.dim
        self.downsample = config.downsample
        self.whisper_encoder = WhisperEncoder(config)
        self.audio_language_projection = nn.Sequential(
            nn.Linear(stacked, dim, bias=False), nn.GELU(), nn.Linear(dim, dim, bias=False)
        )
        self.tok_embeddings = nn.Embedding(config.vocab_size, dim)

    def forward(self, mel: Tensor) -> Tensor:
        frames = self.whisper_encoder(mel)
        stacked = frames.unflatten(1, (-1, self.downsample)).flatten(2)
        y: Tensor = self.audio_language_projection(stacked)
        return y


class VoxtralRealtime(nn.Module):
    """The whole model; ``forward`` is for training, ``step`` for decoding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        stack = config.decoder
        self.mm_streams_embeddings = nn.ModuleDict({"embedding_module": AudioEmbedding(config)})
        self.layers = nn.ModuleList(Layer(stack, config.norm_eps) for _ in range(stack.n_layers))
        self.norm = nn.RMSNorm(stack.dim, config.norm_eps)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=min(0.05, (2 / sum(parameter.shape)) ** 0.5))
        for module in self.modules():
            if isinstance(module, Layer):  # small residual branches: a calm start
                with torch.no_grad():
                    module.attention.wo.weight.mul_(0.35)
                    module.feed_forward.w2.weight.mul_(0.35)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Log-mel [B, 8 P, n_mels] -> audio embeddings [B, P, dim] in float32."""
        embedding: Tensor = self.mm_streams_embeddings["embedding_module"](mel)
        return embedding.float()

    @property
    def token_embedding(self) -> Tensor:
        """[vocab_size, dim], also the output projection."""
        weight: Tensor = self.get_parameter(EMBEDDING)
        return weight

    def forward(self, mel: Tensor, tokens: Tensor, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, P, vocab_size] and the audio embeddings [B, P, dim].

        Args:
            mel: [B, 8 P, n_mels] float32.
            tokens: [B, P] int64, the input at each position.
            delays: [B] int64, in positions.
        """
        audio = self.embed_audio(mel)
        x = audio + functional.embedding(tokens, self.token_embedding)
        delay = self.delay_embedding(delays)
        rows = self.rotary(range(x.shape[1]))
        for layer in self.layers:
            x = layer(x, rows, delay)
        return self._logits(x), audio

    def step(
        self, audio: Tensor, tokens: Tensor, position: int, delay: Tensor, caches: list[KV | None]
    ) -> Tensor:
        """Logits [B, vocab_size] of one position; replaces the entries of ``caches``.

        Args:
            audio: [B, dim], the position's audio embedding.
            tokens: [B] int64, its input.
            delay: [1, dim] from ``delay_embedding``.
        """
        x = (audio + functional.embedding(tokens, self.token_embedding))[:, None]
        rows = self.rotary(range(position, position + 1))
        for index, layer in enumerate(self.layers):
            x, caches[index] = cast(Layer, layer).step(x, rows, delay, caches[index])
        return self._logits(x)[:, 0]

    def rotary(self, positions: range) -> Rotary:
        """Rotary factors of the decoder."""
        device = self.token_embedding.device
        return rotary(positions, self.config.decoder.head_dim, self.config.rope_theta, device)

    def delay_embedding(self, delays: Tensor) -> Tensor:
        """[B] delays in positions -> [B, dim]: cosines, then sines, of 10000^(-i / (dim / 2))."""
        half = self.config.decoder.dim // 2
        place = torch.arange(half, device=delays.device)
        frequencies = torch.exp(place * (-math.log(10000.0) / half))
        angles = delays.float()[:, None] * frequencies
        return torch.cat((angles.cos(), angles.sin()), dim=-1)

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(self.norm(x), self.token_embedding)
