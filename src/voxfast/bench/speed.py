"""What a machine can do: seconds per position and per token of both models, on any device.

The network runs as in a live stream, without tokenizer and policy, on audio that means nothing.
All functions compute on MLX's default device.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.bench.plain import PlainQwen3ASR, PlainVoxtral
from voxfast.bench.random_models import (
    QWEN3_ASR_0_6B,
    QWEN3_ASR_1_7B,
    random_qwen3_asr,
    random_voxtral,
)
from voxfast.features import LogMelStream
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import Qwen3ASR, TowerRows
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.registry import family_of
from voxfast.models.voxtral.family import VOXTRAL
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.ops import greedy, log_mel

__all__ = ["RANDOM_MODELS", "Network", "load_network", "same_tokens", "time_network"]

Network = Voxtral | Qwen3ASR
Samples = NDArray[np.float32]
Found = tuple[int, mx.array]  # a token, and numbers of which the greatest is compared

RANDOM_MODELS: dict[str, Callable[[], Network]] = {
    "voxtral-4b-4bit": lambda: random_voxtral(4),
    "voxtral-4b-8bit": lambda: random_voxtral(8),
    "voxtral-4b-bfloat16": lambda: random_voxtral(None),
    "qwen3-asr-0.6b-4bit": lambda: random_qwen3_asr(QWEN3_ASR_0_6B, 4)[1],
    "qwen3-asr-0.6b-bfloat16": lambda: random_qwen3_asr(QWEN3_ASR_0_6B, None)[1],
    "qwen3-asr-1.7b-4bit": lambda: random_qwen3_asr(QWEN3_ASR_1_7B, 4)[1],
    "qwen3-asr-1.7b-bfloat16": lambda: random_qwen3_asr(QWEN3_ASR_1_7B, None)[1],
}
"""Full-size models with random weights by name."""

PROMPT = 39  # positions of Voxtral's prompt at a delay of 6
N_DELAY = 6
QWEN_PROMPT = (9, 6)  # positions before and after the audio
QWEN_WRITTEN = 6  # tokens of an inference over one more second
LEAST_STEPS = 3


def load_network(folder: Path, dtype: mx.Dtype | None = None) -> Network:
    """The network of a checkpoint, for the default device."""
    if family_of(folder) is VOXTRAL:
        return load_voxtral(folder, dtype)
    return load_qwen3_asr(folder, dtype)


def noise(seconds: float) -> Samples:
    """Audio that is neither silence nor speech, the same at every call."""
    n = int(16_000 * seconds)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * np.arange(n) / 16_000)
    return (0.1 * swell * np.random.default_rng(0).standard_normal(n)).astype(np.float32)


# ---- the networks, step by step -------------------------------------------------------------


def voxtral_positions(model: Voxtral, samples: Samples) -> Iterator[Found]:
    """A live stream: the prompt, then every position as soon as its audio is there."""
    args = model.args
    size = args.samples_per_position
    encoder = model.encoder_state(args.downsample_factor * PROMPT)
    decoder = model.decoder_state(N_DELAY, PROMPT)
    mel = LogMelStream(
        left_padding=240, n_mels=args.audio.n_mels, log_floor=-6.5, shift=4.0, scale=0.25
    )
    tokens = mx.zeros(PROMPT, mx.int32)
    for end in range(PROMPT * size, len(samples), size):
        begin = 0 if decoder.caches[0].offset == 0 else end - size
        (audio,) = model.encode([mel.step(samples[begin:end])[None]], [[encoder]])
        assert audio is not None
        logits = model.decode([DecoderRows(audio, tokens, decoder)])
        token, probability = greedy(logits)
        mx.eval(token, probability, encoder.arrays(), decoder.arrays())
        tokens = token
        yield cast(int, token.item()), logits[0]


def read_audio(model: Qwen3ASR, samples: Samples) -> tuple[Decoder, Found, mx.array]:
    """A decoder that has read the audio, at most 8 s; the first token; the embeddings."""
    mel = (mx.maximum(log_mel(mx.array(samples), n_mels=model.args.audio.n_mels), -4.0) + 4.0) / 4.0
    (embeddings,) = model.encode([TowerRows(mel, model.window_state(), alone=True)])
    n_layers, n_heads = model.args.text.n_layers, model.args.text.n_heads
    middle = range(n_layers * 2 // 5, max(n_layers * 3 // 5, n_layers * 2 // 5 + 1))
    decoder = Decoder(model, range(QWEN_PROMPT[0]), {layer: [0, n_heads - 1] for layer in middle})
    first = run_alone(decoder.read(Audio(embeddings, 0), range(QWEN_PROMPT[1])))
    return decoder, (first.id, mx.array(first.probability)), embeddings


def qwen3_tokens(model: Qwen3ASR, samples: Samples) -> Iterator[Found]:
    """The text that the model writes to audio of at most 8 s, without an end."""
    decoder, found, _ = read_audio(model, samples)
    while True:
        yield found
        token = run_alone(decoder.write(found[0]))
        found = token.id, mx.array(token.probability)


def same_tokens(folder: Path, device: mx.Device, count: int = 50) -> str:
    """Whether a checkpoint writes the same in float32 on the CPU and on a device.

    Noise has few words, so the greatest logit (of Qwen3-ASR: the probability) is compared, too.

    Returns:
        an empty text if so, else where they differ.
    """
    found = []
    before = mx.default_device()
    for each in (mx.Device(mx.cpu), device):
        mx.set_default_device(each)
        try:
            model = load_network(folder, mx.float32)
            if isinstance(model, Voxtral):
                steps = voxtral_positions(model, noise((PROMPT + count + 2) * 0.08))
            else:
                steps = qwen3_tokens(model, noise(6.0))
            found.append(
                [(token, float(mx.max(x).item())) for token, x in islice(steps, count)]  # type: ignore[arg-type]
            )
        finally:
            mx.set_default_device(before)
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        if a[0] != b[0] or not math.isclose(a[1], b[1], rel_tol=1e-2, abs_tol=1e-3):
            return f"step {i}: token {b[0]} ({b[1]:.4f}), on the CPU {a[0]} ({a[1]:.4f})"
    return ""


# ---- time -------------------------------------------------------------------------------------


def time_network(model: Network, seconds: float, *, baseline: bool) -> dict[str, float]:
    """Times of a network on the default device.

    Args:
        seconds: how long each step is repeated.
        baseline: measure the same weights as mlx-lm runs them, too.

    Returns:
        Milliseconds, the median of each: ``position_ms`` of Voxtral (80 ms of audio, from samples
        to token); ``token_ms`` and ``second_ms`` of Qwen3-ASR (a stream's inference over one
        second more); ``plain_ms``, the baseline of position or token; and ``real_time_factor``,
        compute over audio.
    """
    if isinstance(model, Voxtral):
        return _time_voxtral(model, seconds, baseline)
    return _time_qwen3(model, seconds, baseline)


def _time_voxtral(model: Voxtral, seconds: float, baseline: bool) -> dict[str, float]:
    positions = voxtral_positions(model, noise(80.0 + seconds * 10))
    next(positions)  # the prompt
    times = {"position_ms": _median_ms(lambda: next(positions), seconds)}
    times["real_time_factor"] = times["position_ms"] / 80
    if baseline:
        plain = PlainVoxtral(model)
        samples, token = mx.array(noise(0.095)), mx.array([0])

        def step() -> None:
            nonlocal token
            token = plain.position(samples, token)[0][None]
            mx.eval(token, plain.state())

        times["plain_ms"] = _median_ms(step, seconds)
    return times


def _time_qwen3(model: Qwen3ASR, seconds: float, baseline: bool) -> dict[str, float]:
    decoder, found, embeddings = read_audio(model, noise(8.0))
    token = found[0]

    def write() -> None:
        nonlocal token
        token = run_alone(decoder.write(token)).id

    times = {"token_ms": _median_ms(write, seconds)}
    samples = noise(1.0)
    settled = Audio(embeddings, max(0, len(embeddings) - 26))  # the last two seconds are read anew

    def second() -> None:
        nonlocal token
        (new,) = model.encode([TowerRows(log_mel(mx.array(samples)), model.window_state())])
        mx.eval(new)
        token = run_alone(decoder.read(settled, range(24))).id
        for _ in range(QWEN_WRITTEN - 1):
            write()

    times["second_ms"] = _median_ms(second, seconds)
    times["real_time_factor"] = times["second_ms"] / 1000
    if baseline:
        plain = PlainQwen3ASR(model)
        last = plain.step(mx.zeros(sum(QWEN_PROMPT) + len(embeddings), mx.int32))[0]

        def step() -> None:
            nonlocal last
            last = plain.step(last[None])[0]
            mx.eval(last, plain.state())

        times["plain_ms"] = _median_ms(step, seconds)
    return times


def _median_ms(step: Callable[[], Any], seconds: float) -> float:
    """The median time of a step in milliseconds, after one to warm up."""
    step()
    times: list[float] = []
    while len(times) < LEAST_STEPS or sum(times) < seconds:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)
