"""Both models at full size with random weights: where the time of a step goes.

    python benches/models.py [--model voxtral-4b-4bit ...] [--composed] [--seconds 4]

No files: weights are drawn in memory, activations keep the size they have in a trained model.
Real audio goes through every stage: through Voxtral as a stream, through Qwen3-ASR 30 s at once
and then one more second as a stream takes it. For each stage: milliseconds (the median),
how many processors were at work, how fast the weights were read and multiplied, and the time as a
multiple of the roofline: one read of the weights on all threads or, where that takes longer, their
multiplications at NumPy's float32 rate.
``--composed`` runs every stage once more with MLX's own ops, which takes hours where weights are
packed; bench_linear.py compares product by product.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from roofline import product_rate, read_seconds

from voxfast._native import _ext
from voxfast.audio import load_audio
from voxfast.bench.random_models import (
    QWEN3_ASR_0_6B,
    QWEN3_ASR_1_7B,
    random_qwen3_asr,
    random_voxtral,
)
from voxfast.features import LogMelStream
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import KeptState, TowerRows
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.network import DecoderState as VoxtralState
from voxfast.ops import greedy, log_mel, use_native
from voxfast.rows import histories

AUDIO = Path(__file__).parent.parent / "tests" / "data" / "eval" / "eval_long_180s.flac"
BLOCK = 6  # positions that the encoder takes at once: 480 ms


@dataclass
class Stage:
    """What was measured of one stage, and the work in it.

    Attributes:
        weights: bytes of the weights that one call reads.
        products: multiplications of one call.
    """

    weights: int
    products: int
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0


def weights_of(*modules: nn.Module) -> tuple[int, int]:
    """Bytes of all weights, and how many numbers the matrices have."""
    n_bytes = numbers = 0
    for module in modules:
        for _, part in module.named_modules():
            weight = part.get("weight")
            if weight is None:
                continue
            n_bytes += sum(
                part[key].nbytes for key in ("weight", "scales", "biases") if key in part
            )
            numbers += weight.size * 32 // part.bits if "scales" in part else weight.size
    return n_bytes, numbers


class Stages:
    """Stopwatches by name of the stage."""

    def __init__(self) -> None:
        self.found: dict[str, Stage] = {}

    @contextmanager
    def of(self, name: str, rows: int, *modules: nn.Module) -> Iterator[None]:
        if name not in self.found:
            n_bytes, numbers = weights_of(*modules)
            self.found[name] = Stage(n_bytes, numbers * rows)
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        self.found[name].seconds.append(time.perf_counter() - start)
        self.found[name].cpu_seconds += time.process_time() - cpu_start


def voxtral(bits: int | None) -> Callable[[np.ndarray, Stages], None]:
    """A stream with the encoder fed every 480 ms; its stages by position or by block."""
    model = random_voxtral(bits)
    prompt = 39

    def run(samples: np.ndarray, stages: Stages) -> None:
        encoder = model.encoder_state(4 * max(prompt, BLOCK))
        decoder = model.decoder_state(6, prompt)
        mel = LogMelStream(n_mels=128, log_floor=-6.5, shift=4.0, scale=0.25)
        step = 1280 * BLOCK
        audio, token = None, 0
        for i in range(0, len(samples) - step, step):
            with stages.of("log-mel, 480 ms", 0):
                frames = mel.step(samples[i : i + step])
                mx.eval(frames)
            rows = frames.shape[0] // 2
            with stages.of("conv stem, 480 ms", rows, *model.encoder.conv_layers):
                x = model.encoder.stem(frames[None].astype(model.dtype), [encoder])
                mx.eval(x, encoder.tails)
            x = x[:, : x.shape[1] // 4 * 4]
            with stages.of("encoder, 480 ms", x.shape[1], *model.encoder.layers):
                x = model.encoder.transform([x], [encoder])
                mx.eval(x, encoder.arrays())
            with stages.of("adapter, 480 ms", x.shape[1] // 4, model.adapter):
                x = model.adapter(x)[0]
                mx.eval(x)
            audio = x if audio is None else mx.concatenate([audio, x])
            if decoder.caches[0].offset == 0:
                if len(audio) >= prompt:
                    with stages.of(f"prefill of {prompt}", prompt, *model.decoder.layers):
                        first, audio = audio[:prompt], audio[prompt:]
                        rows = DecoderRows(first, mx.zeros(prompt, mx.int32), decoder)
                        logits = model.decode([rows])
                        mx.eval(logits, decoder.arrays())
                continue
            for j in range(len(audio)):
                with stages.of("decoder, 80 ms", 1, *model.decoder.layers):
                    h = (audio[j : j + 1] + model.decoder.tok_embeddings(mx.array([token])))[None]
                    h = hidden(model, h, decoder)
                    mx.eval(h, decoder.arrays())
                with stages.of("logits and argmax, 80 ms", 1, model.decoder.tok_embeddings):
                    token = int(greedy(model.decoder.tok_embeddings.as_linear(h)[0])[0].item())
            audio = audio[:0]

    return run


def hidden(model: Voxtral, x: mx.array, state: VoxtralState) -> mx.array:
    """The decoder without its last product."""
    decoder = model.decoder
    args = model.args.decoder
    layers = histories([state.caches], [x.shape[1]], args.head_dim, args.rope_theta)
    for layer, scale, history in zip(decoder.layers, state.scales, layers, strict=True):
        x = layer(x, scale, history)
    return decoder.norm(x[:, -1])


PROMPT = (9, 6)  # positions before and after the audio
# Of a stream's inference over one new second: what it reads anew (audio positions of the last
# two seconds; the end of the prompt and the certain text) and the tokens that it writes.
READ, WRITTEN = (26, 24), 6


def qwen3_asr(config: dict[str, Any], bits: int | None) -> Callable[[np.ndarray, Stages], None]:
    """30 s of audio at once, and the inference of a stream for one more second."""
    network, model = random_qwen3_asr(config, bits)
    tower, window = network.audio_tower, 104
    projection = (tower.proj1, tower.proj2)
    heads = {layer: [5, 8] for layer in range(12, 22)}  # as many as alignment heads were measured
    convolutions = (tower.conv2d1, tower.conv2d2, tower.conv2d3, tower.conv_out)

    def encode(x: mx.array) -> tuple[mx.array, KeptState]:
        state = model.window_state()
        (embeddings,) = model.transform([x], [state])
        mx.eval(embeddings, state.arrays())
        return embeddings, state

    def run(_: np.ndarray, stages: Stages) -> None:
        samples = mx.array(load_audio(AUDIO)[: 30 * 16000])
        everything = (*network.model.layers, network.model.embed_tokens)
        for _ in range(3):
            with stages.of("log-mel, 30 s", 0):
                mel = log_mel(samples)
                mx.eval(mel)
            with stages.of("conv stem, 30 s", 0, *convolutions):
                (x,) = model.stem([(mel, False)])
                mx.eval(x)
            embeddings = []
            with stages.of("tower, 30 s", x.shape[0], *tower.layers, *projection):
                for first in range(0, x.shape[0], window):
                    found, past = encode(x[first : first + window])
                    embeddings.append(found)
            audio = Audio(mx.concatenate(embeddings), 0)
            rows = len(audio.embeddings) + sum(PROMPT)
            decoder = Decoder(model, range(PROMPT[0]), heads)
            with stages.of(f"prefill of {rows}", rows, *network.model.layers):
                token = run_alone(decoder.read(audio, range(PROMPT[1]))).id
        for _ in range(30):
            with stages.of("token", 1, *everything):
                token = run_alone(decoder.write(token)).id
        again = Audio(audio.embeddings, len(audio.embeddings) - READ[0])
        for _ in range(3):
            with stages.of("stream, 1 s more", 0):
                mx.eval(model.encode([TowerRows(mel[:100], past)]))
                past.keep(past.offset - 13)
                token = run_alone(decoder.read(again, range(READ[1]))).id
                for _ in range(WRITTEN - 1):
                    token = run_alone(decoder.write(token)).id

    return run


MODELS: dict[str, Callable[[], Callable[[np.ndarray, Stages], None]]] = {
    "voxtral-4b-4bit": lambda: voxtral(4),
    "voxtral-4b-8bit": lambda: voxtral(8),
    "qwen3-asr-0.6b-bfloat16": lambda: qwen3_asr(QWEN3_ASR_0_6B, None),
    "qwen3-asr-0.6b-8bit": lambda: qwen3_asr(QWEN3_ASR_0_6B, 8),
    "qwen3-asr-0.6b-4bit": lambda: qwen3_asr(QWEN3_ASR_0_6B, 4),
    "qwen3-asr-1.7b-bfloat16": lambda: qwen3_asr(QWEN3_ASR_1_7B, None),
    "qwen3-asr-1.7b-8bit": lambda: qwen3_asr(QWEN3_ASR_1_7B, 8),
    "qwen3-asr-1.7b-4bit": lambda: qwen3_asr(QWEN3_ASR_1_7B, 4),
}


def report(stages: Stages, composed: Stages | None, rates: tuple[float, float]) -> None:
    read, product = rates
    for name, stage in stages.found.items():
        seconds = statistics.median(stage.seconds)
        roofline = max(stage.weights / read, stage.products / product)
        processors = stage.cpu_seconds / sum(stage.seconds)
        line = f"  {name:28}{1e3 * seconds:10.2f} ms on {processors:.1f}"
        if stage.products:
            rate = 2 * stage.products / seconds
            line += f"{stage.weights / seconds / 1e9:8.1f} GB/s{rate / 1e9:8.1f} GFLOP/s"
            line += f"{seconds / roofline:8.2f} x roofline"
        if composed is not None and name in composed.found:
            line += f"{min(composed.found[name].seconds) / seconds:10.1f} x faster than composed"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=6.0, help="of audio")
    parser.add_argument("--composed", action="store_true")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    samples = load_audio(AUDIO)[: int(16000 * options.seconds)]
    size = 256 << 20
    read, product = size / read_seconds(size), product_rate()
    print(
        f"{_ext.isa()}, {_ext.num_threads()} threads: read {read / 1e9:.1f} GB/s, "
        f"float32 product {2 * product / 1e9:.0f} GFLOP/s"
    )
    for name in options.model:
        print(name)
        run = MODELS[name]()
        stages, composed = Stages(), None
        run(samples, stages)
        if options.composed:
            composed = Stages()
            with use_native(False):
                run(samples[: 16000 * 4], composed)
        report(stages, composed, (read, product))
        del run
        mx.clear_cache()


if __name__ == "__main__":
    main()
