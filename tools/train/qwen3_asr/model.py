"""Qwen3-ASR in PyTorch, for training; parameters are named as in the published checkpoints.

Dimension letters: B batch, T mel frames, N audio tokens, L positions, H query heads, H_kv key/value
heads, D head size.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..mel import N_MELS
from .config import ModelConfig

__all__ = ["CHUNK_FRAMES", "CHUNK_TOKENS", "Outputs", "Qwen3ASR", "audio_tokens", "quantise"]

CHUNK_FRAMES, CHUNK_TOKENS = 100, 13  # mel frames of a chunk of convolution, and its tokens
_HIDDEN = -1e9


def audio_tokens(frames: int) -> int:
    """Audio tokens of so many mel frames: 13 a second, a started eighth of 80 ms counts."""
    whole, rest = divmod(frames, CHUNK_FRAMES)
    return whole * CHUNK_TOKENS + (rest + 7) // 8


class AudioAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        attended = torch.softmax(scores.float() + mask, -1).to(v.dtype) @ v
        y: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return y


class AudioLayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.audio_dim
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = AudioAttention(dim, config.audio_heads)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.audio_ffn)
        self.fc2 = nn.Linear(config.audio_ffn, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        y: Tensor = x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))
        return y


class AudioTower(nn.Module):
    """Convolutions over chunks of a second, then attention within windows of 8 s."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, channels = config.audio_dim, config.channels
        self.window = config.window
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, 1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.conv_out = nn.Linear(channels * N_MELS // 8, dim, bias=False)
        self.layers = nn.ModuleList(AudioLayer(config) for _ in range(config.audio_layers))
        self.ln_post = nn.LayerNorm(dim)
        self.proj1 = nn.Linear(dim, dim)
        self.proj2 = nn.Linear(dim, config.dim)
        self.register_buffer("places", _sinusoids(CHUNK_TOKENS, dim), persistent=False)

    def forward(self, mel: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Audio embeddings [B, N, dim], and the states [B, N, audio_dim] that they are made of.

        Args:
            mel: [B, T, N_MELS], T a multiple of 100, zeros beyond the end of each clip.
            counts: [B] audio tokens of each clip.
        """
        chunks = mel.shape[1] // CHUNK_FRAMES
        x = (
            torch.unflatten(mel, 1, (chunks, CHUNK_FRAMES))
            .flatten(0, 1)
            .transpose(1, 2)
            .unsqueeze(1)
        )
        for convolution in (self.conv2d1, self.conv2d2, self.conv2d3):
            x = functional.gelu(convolution(x))
        x = torch.unflatten(x.permute(0, 3, 1, 2).flatten(2), 0, (-1, chunks)).flatten(1, 2)
        x = self.conv_out(x) + cast(Tensor, self.places).repeat(chunks, 1)
        mask = self._mask(x.shape[1], counts)
        for layer in self.layers:
            x = layer(x, mask)
        states: Tensor = self.ln_post(x)
        return self.proj2(functional.gelu(self.proj1(states))), states

    def _mask(self, tokens: int, counts: Tensor) -> Tensor:
        """[B, 1, N, N], zero where a token is seen; each sees itself, or padding would be NaN."""
        place = torch.arange(tokens, device=counts.device)
        window = place // self.window
        seen = (window[:, None] == window) & (place < counts[:, None, None])
        seen = seen | torch.eye(tokens, dtype=torch.bool, device=counts.device)
        return torch.zeros(seen.shape, device=counts.device).masked_fill(~seen, _HIDDEN)[:, None]


def _sinusoids(length: int, dim: int) -> Tensor:
    """[length, dim]: sines, then cosines."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), -1)


class Attention(nn.Module):
    """Causal, grouped-query, with normed queries and keys and split-half rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim, inner = config.head_dim, config.heads * config.head_dim
        inner_kv = config.kv_heads * config.head_dim
        self.groups = config.heads // config.kv_heads
        self.q_proj = nn.Linear(config.dim, inner, bias=False)
        self.k_proj = nn.Linear(config.dim, inner_kv, bias=False)
        self.v_proj = nn.Linear(config.dim, inner_kv, bias=False)
        self.o_proj = nn.Linear(inner, config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """x [B, L, dim] -> the same, and the weights [B, H, L, L] float32."""
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        q, k = _rotate(self.q_norm(q.float()), rows), _rotate(self.k_norm(k.float()), rows)
        k, v = (part.repeat_interleave(self.groups, 1) for part in (k, v))
        scores = (q * self.head_dim**-0.5).to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)
        length = x.shape[1]
        future = torch.full((length, length), _HIDDEN, device=x.device).triu(1)
        weights = torch.softmax(scores.float() + future, -1)
        attended = weights.to(v.dtype) @ v
        return self.o_proj(attended.transpose(1, 2).flatten(2)), weights


def _rotate(x: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
    cosines, sines = rows
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.dim, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        attended, weights = self.self_attn(self.input_layernorm(x), rows)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class TextModel(nn.Module):
    def __init__(self, config: ModelConfig, rows: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(rows, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)


class Outputs(NamedTuple):
    """Attributes:
    logits: [B, targets, rows + 1]; the last class is that of all rows not in use.
    states: [B, N, audio_dim] of the audio tower.
    attention: [B, guided heads, targets, L] float32.
    """

    logits: Tensor
    states: Tensor
    attention: Tensor


def quantise(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Codes 0 … 3 of each element, and the scale of each row: (code − 1.5) × scale.

    The scale is the step of the best 4 levels for a normal distribution, and exact in float16.
    """
    scale = (0.996 * embedding.square().mean(-1, keepdim=True).sqrt()).bfloat16().float()
    return (embedding / scale + 1.5).round().clamp(0, 3), scale


class Qwen3ASR(nn.Module):
    """``rows`` of the embedding stand for the ids in use; all others of the published one are 0."""

    def __init__(self, config: ModelConfig, rows: int) -> None:
        super().__init__()
        self.config, self.rows = config, rows
        self.audio_tower = AudioTower(config)
        self.model = TextModel(config, rows)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=min(0.06, (2 / sum(parameter.shape)) ** 0.5))
        nn.init.normal_(self.model.embed_tokens.weight, std=0.25)

    def embedding(self) -> Tensor:
        """[rows, dim] as it is exported, in 2 bits; gradients go straight through."""
        weight = self.model.embed_tokens.weight
        codes, scale = quantise(weight)
        return weight + ((codes - 1.5) * scale - weight).detach()

    def decode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x [B, L, dim] -> the normed states, and each layer's attention [B, H, L, L]."""
        rows = _rotary(x.shape[1], self.config, x.device)
        attention = []
        for layer in self.model.layers:
            x, weights = layer(x, rows)
            attention.append(weights)
        return self.model.norm(x), attention

    def embed(self, ids: Tensor, audio: Tensor, places: Tensor) -> Tensor:
        """[B, L, dim] of tokens, with ``audio`` [B, N, dim] where ``places`` [B, L] is not −1."""
        index = places.clamp_min(0)[..., None].expand(-1, -1, audio.shape[-1])
        tokens = functional.embedding(ids, self.embedding())
        return torch.where(places[..., None] >= 0, audio.float().gather(1, index), tokens)

    def forward(
        self, mel: Tensor, counts: Tensor, ids: Tensor, places: Tensor, queries: Tensor
    ) -> Outputs:
        """The outputs at the positions ``queries`` [B, targets] of ``ids`` [B, L]."""
        audio, states = self.audio_tower(mel, counts)
        x, attention = self.decode(self.embed(ids, audio, places))
        asked = x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))
        index = queries[..., None].expand(-1, -1, x.shape[1])
        guided = [attention[layer][:, head].gather(1, index) for layer, head in self.config.guided]
        return Outputs(self.logits(asked), states, torch.stack(guided, 1))

    def logits(self, x: Tensor) -> Tensor:
        """[…, rows + 1]: a zero row has logit 0, and there are many of them."""
        logits = functional.linear(x, self.embedding()).float()
        rest = math.log(max(self.config.vocab_size - self.rows, 1))
        return torch.cat((logits, torch.full_like(logits[..., :1], rest)), -1)


def _rotary(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    frequencies = config.rope_theta ** (
        -torch.arange(0, config.head_dim, 2, device=device) / config.head_dim
    )
    angles = torch.arange(length, device=device)[:, None] * frequencies
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()
