"""Voxtral Realtime in plain NumPy and float64: what voxfast is tested against.

Written to be read. There is no cache, no chunking and no streaming: every stage takes the
whole recording at once and says with a mask what each position may see. Every size comes
from the checkpoint's ``params.json`` and ``tekken.json``. The model (arXiv 2602.11298):

    audio, 16 kHz            [N]
      pad_audio                silence in front and behind
      log_mel                [T, n_mels]     100 frames per second
      conv stem              [T/2, dim]      two causal convolutions
      encoder                [T/2, dim]      causal transformer with a sliding window
      adapter                [P, dim]        four frames make one position: 12.5 per second
      decoder                [P, dim]        at each position one audio embedding plus the
                                             embedding of the token chosen one position before
      logits                 [K, vocabulary] the tokens that stand `n_delay` positions after
                                             the audio that they transcribe

Dimension letters: N samples, T mel frames, P positions (80 ms), K generated tokens,
L rows of any sequence, H query heads, H_kv KV heads, D head size. All arrays are float64.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]

# Positions of silence behind the audio beyond the delay and the one position that starts it.
RIGHT_PAD_BUFFER = 10


# --- Checkpoint -----------------------------------------------------------------------------


def read_safetensors(path: Path) -> Weights:
    """All tensors of a safetensors file: length of the header (u64), JSON header, raw data."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        weights[name] = _to_float64(raw, entry["dtype"]).reshape(entry["shape"])
    return weights


def _to_float64(raw: bytes, dtype: str) -> Array:
    if dtype == "BF16":  # the upper half of a float32
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float64)


def under(prefix: str, weights: Weights) -> Weights:
    """The weights whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}


# --- Audio front end ------------------------------------------------------------------------


def mel_filterbank(n_mels: int, n_fft: int, sample_rate: int) -> Array:
    """Slaney's filterbank with Slaney's norm, [n_mels, n_fft / 2 + 1], 0 Hz to Nyquist.

    The mel scale of Slaney's Auditory Toolbox (1998) is linear up to 1000 Hz (mel 15) and
    logarithmic above, 27 mels for a factor of 6.4. A filter is a triangle over three
    neighbouring edges, scaled to an area of 1 (in Hz, with the height 2 / width).
    """
    hertz_per_mel, log_step = 200 / 3, math.log(6.4) / 27
    nyquist = sample_rate / 2
    top = 15 + math.log(nyquist / 1000) / log_step
    mels = np.linspace(0, top, n_mels + 2)
    edges: Array = np.where(mels < 15, mels * hertz_per_mel, 1000 * np.exp((mels - 15) * log_step))
    frequencies = np.linspace(0, nyquist, n_fft // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    triangles: Array = np.maximum(0, np.minimum(rising, falling))
    return triangles * 2 / (high - low)


def log_mel(
    samples: Array,
    *,
    n_mels: int,
    n_fft: int,
    hop_length: int,
    sample_rate: int,
    global_log_mel_max: float,
) -> Array:
    """Log-mel frames of `samples` [N], frames first: [N / hop_length, n_mels].

    Frame t is centred on sample hop_length · t, so it takes n_fft / 2 samples on either
    side; what lies outside of the recording counts as zero. (The silence that pad_audio
    puts at both ends makes it immaterial how a front end continues the edges.)
    """
    half = n_fft // 2
    padded = np.pad(samples, half)
    starts = hop_length * np.arange(len(samples) // hop_length)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)  # periodic
    frames = padded[starts[:, None] + np.arange(n_fft)] * hann
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = power @ mel_filterbank(n_mels, n_fft, sample_rate).T
    log: Array = np.maximum(np.log10(np.maximum(mel, 1e-10)), global_log_mel_max - 8)
    return (log + 4) / 4


# --- Building blocks of both transformers ---------------------------------------------------


def linear(x: Array, name: str, weights: Weights) -> Array:
    """x · Wᵀ, plus the bias where the checkpoint has one."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", np.zeros(()))


def gelu(x: Array) -> Array:
    """The exact GELU, x · Φ(x) with the error function (not the tanh approximation)."""
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel()), np.float64, x.size)
    return 0.5 * x * (1 + erf.reshape(x.shape))


def silu(x: Array) -> Array:
    """x · sigmoid(x)."""
    sigmoid: Array = 1 / (1 + np.exp(-x))
    return x * sigmoid


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x divided by its root mean square over the last axis, times `weight`."""
    root: Array = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)
    return x / root * weight


def rotate(x: Array, theta: float) -> Array:
    """Rotary position embedding of x [L, heads, D] at positions 0 … L - 1 (arXiv 2104.09864).

    Interleaved: the pair (2i, 2i + 1) turns by position · theta^(-2i / D).
    """
    length, _, head_dim = x.shape
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = (np.arange(length)[:, None] * frequencies)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    out[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
    return out


def sliding_attention(q: Array, k: Array, v: Array, window: int) -> Array:
    """Causal attention in which position p sees positions p - window + 1 … p.

    q is [L, H, D], k and v are [L, H_kv, D]; query head h reads KV head h // (H / H_kv).
    Queries are taken a block at a time with the keys that the block can see: that saves
    memory on long recordings and changes nothing else.
    """
    length, n_heads, head_dim = q.shape
    k, v = (np.repeat(x, n_heads // x.shape[1], axis=1) for x in (k, v))
    q, k, v = (x.swapaxes(0, 1) for x in (q, k, v))  # heads first: [H, L, D]
    out = np.empty_like(q)
    for start in range(0, length, 256):
        rows = np.arange(start, min(start + 256, length))
        columns = np.arange(max(0, start - window + 1), rows[-1] + 1)
        age = rows[:, None] - columns
        visible = (age >= 0) & (age < window)
        scores = q[:, rows] @ k[:, columns].swapaxes(1, 2) / math.sqrt(head_dim)
        scores = np.where(visible, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[:, rows] = weights @ v[:, columns]
    return out.swapaxes(0, 1)


@dataclass(frozen=True)
class Transformer:
    """The sizes of a transformer and how it computes; used for encoder and decoder."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float
    sliding_window: int

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> "Transformer":
        return cls(**{name: params[name] for name in cls.__dataclass_fields__})

    def attention(self, x: Array, weights: Weights) -> Array:
        q = linear(x, "wq", weights).reshape(len(x), self.n_heads, self.head_dim)
        k = linear(x, "wk", weights).reshape(len(x), self.n_kv_heads, self.head_dim)
        v = linear(x, "wv", weights).reshape(len(x), self.n_kv_heads, self.head_dim)
        q, k = rotate(q, self.rope_theta), rotate(k, self.rope_theta)
        out = sliding_attention(q, k, v, self.sliding_window)
        return linear(out.reshape(len(x), -1), "wo", weights)

    def feed_forward(self, x: Array, weights: Weights) -> Array:
        gate, up = linear(x, "w1", weights), linear(x, "w3", weights)
        return linear(silu(gate) * up, "w2", weights)

    def __call__(self, x: Array, weights: Weights, delay_embedding: Array | None = None) -> Array:
        """x [L, dim] through all layers and the last norm; `delay_embedding` [dim] if used."""
        for n in range(self.n_layers):
            layer = under(f"layers.{n}.", weights)
            h = rms_norm(x, layer["attention_norm.weight"], self.norm_eps)
            x = x + self.attention(h, under("attention.", layer))
            h = rms_norm(x, layer["ffn_norm.weight"], self.norm_eps)
            if delay_embedding is not None:
                down = linear(delay_embedding, "ada_rms_norm_t_cond.0", layer)
                h = h * (1 + linear(gelu(down), "ada_rms_norm_t_cond.2", layer))
            x = x + self.feed_forward(h, under("feed_forward.", layer))
        return rms_norm(x, weights["norm.weight"], self.norm_eps)


def causal_conv(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """x [L, in] → [L / stride, out]; weight [out, in, k]; zeros (k - stride) on the left only."""
    size = weight.shape[-1]
    padded = np.pad(x, ((size - stride, 0), (0, 0)))
    starts = np.arange(0, len(padded) - size + 1, stride)
    out = np.tile(bias, (len(starts), 1))
    for i in range(size):
        out += padded[starts + i] @ weight[:, :, i].T
    return out


# --- The model ------------------------------------------------------------------------------


class Voxtral:
    """A Voxtral Realtime checkpoint in the original Mistral layout.

    Args:
        folder: holds ``params.json``, ``consolidated.safetensors`` and ``tekken.json``.
    """

    def __init__(self, folder: Path) -> None:
        params = json.loads((folder / "params.json").read_text())
        whisper = params["multimodal"]["whisper_model_args"]
        weights = read_safetensors(folder / "consolidated.safetensors")
        audio_weights = under("mm_streams_embeddings.embedding_module.", weights)

        self.audio = whisper["encoder_args"]["audio_encoding_args"]
        self.samples_per_position = int(self.audio["sampling_rate"] / self.audio["frame_rate"])
        self.downsample_factor: int = whisper["downsample_args"]["downsample_factor"]
        self.encoder = Transformer.from_params(whisper["encoder_args"])
        self.encoder_weights = under("whisper_encoder.", audio_weights)
        self.adapter_weights = under("audio_language_projection.", audio_weights)
        self.decoder = Transformer.from_params(params)
        self.decoder_weights = weights
        self.token_embeddings = audio_weights["tok_embeddings.weight"]

        tekken = json.loads((folder / "tekken.json").read_text())
        special = {entry["token_str"]: entry["rank"] for entry in tekken["special_tokens"]}
        self.bos: int = special["<s>"]
        self.streaming_pad: int = special["[STREAMING_PAD]"]
        self.streaming_word: int = special["[STREAMING_WORD]"]
        self.n_left_pad: int = tekken["audio"]["streaming_n_left_pad_tokens"]
        self.n_special: int = tekken["config"]["default_num_special_tokens"]
        self.vocabulary = [base64.b64decode(entry["token_bytes"]) for entry in tekken["vocab"]]

    # Audio in

    def pad_audio(self, audio: ArrayLike, n_delay: int) -> Array:
        """`audio` [N] between silences, a whole number of positions long.

        In front: the left pad. Behind: what is missing to a full position, then n_delay
        positions until the last word can be written, 1 for the position that the prompt
        starts with, and a buffer for words that queue up.
        """
        audio = np.asarray(audio, np.float64)
        size = self.samples_per_position
        right = -len(audio) % size + (n_delay + 1 + RIGHT_PAD_BUFFER) * size
        return np.pad(audio, (self.n_left_pad * size, right))

    def log_mel(self, samples: Array) -> Array:
        """Mel frames [T, n_mels] of padded audio [N]."""
        return log_mel(
            samples,
            n_mels=self.audio["num_mel_bins"],
            n_fft=self.audio["window_size"],
            hop_length=self.audio["hop_length"],
            sample_rate=self.audio["sampling_rate"],
            global_log_mel_max=self.audio["global_log_mel_max"],
        )

    def encode(self, mel: Array) -> Array:
        """Audio embeddings [P, decoder dim] of mel frames [T, n_mels], T = 8 · P."""
        x = mel
        for n, stride in enumerate((1, 2)):
            conv = under(f"conv_layers.{n}.conv.", self.encoder_weights)
            x = gelu(causal_conv(x, conv["weight"], conv["bias"], stride))
        x = self.encoder(x, under("transformer.", self.encoder_weights))
        x = x.reshape(len(x) // self.downsample_factor, -1)  # stack the frames of a position
        return linear(gelu(linear(x, "0", self.adapter_weights)), "2", self.adapter_weights)

    def embed_audio(self, audio: ArrayLike, n_delay: int) -> Array:
        """Audio embeddings [P, decoder dim] of 16 kHz audio [N]: padding, mel, encoder."""
        return self.encode(self.log_mel(self.pad_audio(audio, n_delay)))

    # Tokens out

    def prompt(self, n_delay: int) -> list[int]:
        """What stands before the first generated token."""
        return [self.bos] + [self.streaming_pad] * (self.n_left_pad + n_delay)

    def delay_embedding(self, n_delay: int) -> Array:
        """[decoder dim]: cosines, then sines, of the delay at geometric frequencies."""
        half = self.token_embeddings.shape[1] // 2
        angles = n_delay * np.exp(-math.log(10000) * np.arange(half) / half)
        return np.concatenate([np.cos(angles), np.sin(angles)])

    def decode_logits(self, audio_embeddings: Array, tokens: Sequence[int], n_delay: int) -> Array:
        """Logits [K, vocabulary] from which each of K generated tokens is chosen.

        Teacher forced: row k is right if tokens[:k] are; tokens[k] itself is not looked at.
        K is at most P - len(prompt) + 1.
        """
        prompt = self.prompt(n_delay)
        inputs = np.array([*prompt, *tokens[:-1]])
        x = audio_embeddings[: len(inputs)] + self.token_embeddings[inputs]
        x = self.decoder(x, self.decoder_weights, self.delay_embedding(n_delay))
        return x[len(prompt) - 1 :] @ self.token_embeddings.T

    def greedy(
        self, audio: ArrayLike, n_delay: int, guess: Sequence[int] | None = None
    ) -> list[int]:
        """The tokens of 16 kHz audio [N], the likeliest at each position, k = 0 first.

        Guesses all tokens, computes what the model would choose at every position, and
        repeats with its choices: what stands before the first difference is final, so
        each round settles one token at least, and usually many. A good first ``guess``
        saves rounds; it does not change the result.
        """
        audio_embeddings = self.embed_audio(audio, n_delay)
        count = len(audio_embeddings) - len(self.prompt(n_delay)) + 1
        tokens = [self.streaming_pad] * count if guess is None else list(guess)
        for _ in range(count + 1):
            logits = self.decode_logits(audio_embeddings, tokens, n_delay)
            before, tokens = tokens, [int(token) for token in logits.argmax(axis=-1)]
            if tokens == before:
                break
        return tokens

    def verify_greedy(
        self, audio: ArrayLike, n_delay: int, tokens: Sequence[int]
    ) -> list[tuple[int, float]]:
        """Where `tokens` are not the greedy ones, given all tokens before: (k, margin).

        The margin says by how much the best logit exceeds that of the token that stands
        there. An empty list says that `tokens` are what greedy() returns.

        Raises:
            ValueError: if there are more or fewer tokens than the audio gives.
        """
        audio_embeddings = self.embed_audio(audio, n_delay)
        count = len(audio_embeddings) - len(self.prompt(n_delay)) + 1
        if len(tokens) != count:
            raise ValueError(f"the audio gives {count} tokens, not {len(tokens)}")
        logits = self.decode_logits(audio_embeddings, tokens, n_delay)
        margins = logits.max(axis=-1) - logits[np.arange(count), list(tokens)]
        return [(int(k), float(margins[k])) for k in np.flatnonzero(margins)]

    def words(self, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """(text, k of the marker) of each group of text tokens that a marker announces.

        The bytes of a group are joined before they are decoded: one character may span
        several tokens.
        """
        groups: list[tuple[bytearray, int]] = []
        for k, token in enumerate(tokens):
            if token == self.streaming_word:
                groups.append((bytearray(), k))
            elif token >= self.n_special and groups:
                groups[-1][0].extend(self.vocabulary[token - self.n_special])
        return [(text.decode(), k) for text, k in groups if text]
