"""Both models at full size with random weights: where the time of a step goes.

    python benches/models.py [--model voxtral-4b-4bit ...] [--composed] [--seconds 4]

No files: weights are drawn in memory, activations keep the size they have in a trained model.
Real audio goes through every stage of Voxtral; of Qwen3-ASR the matrix products are timed, as
30 s of audio need them, without attention and norms. For each stage: milliseconds (the median),
how many processors were at work, how fast the weights were read and multiplied, and how many
times the floor that is: one read of the weights on all threads or, where that takes longer, their
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

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from floors import product_rate, read_seconds
from mlx.utils import tree_flatten, tree_unflatten

from voxfast._native import _ext
from voxfast.audio import load_audio
from voxfast.features import LogMelStream
from voxfast.models.voxtral import DecoderState, Voxtral
from voxfast.models.voxtral_config import AudioArgs, TransformerArgs, VoxtralArgs
from voxfast.nn import serve_layers
from voxfast.ops import rotary_tables, use_native

AUDIO = Path(__file__).parent.parent / "tests" / "data" / "eval" / "eval_long_180s.flac"
GROUP_SIZE = 64

VOXTRAL_4B = VoxtralArgs(
    AudioArgs(128, 1.5),
    TransformerArgs(1280, 32, 32, 32, 64, 5120, 750, 1e-5, 1e6),
    TransformerArgs(3072, 26, 32, 8, 128, 9216, 8192, 1e-5, 1e6),
    vocab_size=131072,
    downsample_factor=4,
    cond_dim=32,
)
BLOCK = 6  # positions that the encoder takes at once: 480 ms


def randomise(network: nn.Module, bits: int | None) -> None:
    """Gives every parameter a random value; weights of matrices keep the size of activations."""
    if bits is not None:
        nn.quantize(network, GROUP_SIZE, bits, class_predicate=packable)
    modules = dict(network.named_modules())
    drawn = []
    for path, parameter in tree_flatten(network.parameters()):
        module = modules[path.rpartition(".")[0]]
        drawn.append((path, draw(path.rpartition(".")[2], module, parameter, bits)))
    network.update(tree_unflatten(drawn))
    mx.eval(network.parameters())


def packable(_: str, module: nn.Module) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP_SIZE == 0


def draw(name: str, module: nn.Module, like: mx.array, bits: int | None) -> mx.array:
    if like.dtype == mx.uint32:
        rng = np.random.default_rng(0)
        return mx.array(rng.integers(0, 2**32, like.shape, dtype=np.uint32))
    if like.ndim == 1:
        ones = name == "weight"  # of norms
        return (mx.ones if ones else mx.zeros)(like.shape, mx.bfloat16)
    inputs = like.size // like.shape[0]
    if name in ("scales", "biases") and bits is not None:
        # Codes are uniform: their deviation is 2^bits / sqrt(12).
        scale = (12 / (inputs * GROUP_SIZE)) ** 0.5 / 2**bits
        return mx.full(
            like.shape, scale if name == "scales" else -scale * (2**bits - 1) / 2
        ).astype(mx.bfloat16)
    return mx.random.normal(like.shape, mx.bfloat16, scale=inputs**-0.5)


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
    model = Voxtral(VOXTRAL_4B)
    randomise(model, bits)
    serve_layers(model)
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
                x = model.encoder.stem(frames[None].astype(model.dtype), encoder.tails)
                mx.eval(x, encoder.tails)
            x = x[:, : x.shape[1] // 4 * 4]
            with stages.of("encoder, 480 ms", x.shape[1], *model.encoder.layers):
                x = model.encoder.transform(x, encoder.caches)
                mx.eval(x, encoder.arrays())
            with stages.of("adapter, 480 ms", x.shape[1] // 4, model.adapter):
                x = model.adapter(x)[0]
                mx.eval(x)
            audio = x if audio is None else mx.concatenate([audio, x])
            if decoder.caches[0].offset == 0:
                if len(audio) >= prompt:
                    with stages.of(f"prefill of {prompt}", prompt, *model.decoder.layers):
                        first, audio = audio[:prompt], audio[prompt:]
                        logits = model.decode(first, mx.zeros(prompt, mx.int32), decoder)
                        mx.eval(logits, decoder.arrays())
                continue
            for j in range(len(audio)):
                with stages.of("decoder, 80 ms", 1, *model.decoder.layers):
                    h = (audio[j : j + 1] + model.decoder.tok_embeddings(mx.array([token])))[None]
                    h = hidden(model, h, decoder)
                    mx.eval(h, decoder.arrays())
                with stages.of("logits and argmax, 80 ms", 1, model.decoder.tok_embeddings):
                    token = int(mx.argmax(model.decoder.tok_embeddings.as_linear(h)[0]).item())
            audio = audio[:0]

    return run


def hidden(model: Voxtral, x: mx.array, state: DecoderState) -> mx.array:
    """The decoder without its last product."""
    decoder, args = model.decoder, model.args.decoder
    rotary = rotary_tables(state.caches[0].offset, x.shape[1], args.head_dim, args.rope_theta)
    for layer, scale, cache in zip(decoder.layers, state.scales, state.caches, strict=True):
        x = layer(x, scale, cache, rotary)
    return decoder.norm(x[:, -1])


@dataclass(frozen=True)
class Qwen3ASRSizes:
    """Of the tower: layers, d, FFN; of the decoder: layers, hidden, q heads, FFN."""

    tower: tuple[int, int, int]
    decoder: tuple[int, int, int, int]

    def tower_layer(self) -> list[tuple[int, int]]:
        """[inputs, outputs] of every product of one layer."""
        _, dim, inner = self.tower
        return [(dim, dim)] * 4 + [(dim, inner), (inner, dim)]

    def decoder_layer(self) -> list[tuple[int, int]]:
        _, dim, heads, inner = self.decoder
        q, kv = heads * 128, 8 * 128
        return [(dim, q), (dim, kv), (dim, kv), (q, dim), (dim, inner), (dim, inner), (inner, dim)]


QWEN3_ASR_0_6B = Qwen3ASRSizes((18, 896, 3584), (28, 1024, 16, 3072))
QWEN3_ASR_1_7B = Qwen3ASRSizes((24, 1024, 4096), (28, 2048, 16, 6144))
QWEN3_ASR_VOCABULARY = 151936


class Products(nn.Module):
    """The matrix products of some layers, one after the other; the input is cut to their size."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = [nn.Linear(*shape, bias=False) for shape in shapes]

        self.inputs = [inputs for inputs, _ in shapes]

    def __call__(self, x: mx.array) -> list[mx.array]:
        pairs = zip(self.layers, self.inputs, strict=True)
        return [layer(x[:, :inputs]) for layer, inputs in pairs]


def qwen3_asr(sizes: Qwen3ASRSizes, bits: int | None) -> Callable[[np.ndarray, Stages], None]:
    """The matrix products alone of 30 s of audio: the tower's windows, prefill, decoding."""
    n_layers, dim = sizes.decoder[:2]
    tower = Products(sizes.tower_layer() * sizes.tower[0])
    decoder = Products(sizes.decoder_layer() * n_layers)
    head = Products([(dim, QWEN3_ASR_VOCABULARY)])
    for part in (tower, decoder, head):
        randomise(part, bits)
        serve_layers(part)

    def run(samples: np.ndarray, stages: Stages) -> None:
        x = mx.random.normal((402, 6144)).astype(mx.bfloat16)
        mx.eval(x)
        with stages.of("tower, 387 tokens", 387, tower):
            for first in range(0, 387, 104):
                mx.eval(tower(x[first : min(first + 104, 387)]))
        with stages.of("prefill of 402", 402, decoder):
            mx.eval(decoder(x))
        for _ in range(10):
            with stages.of("decoder, 1 token", 1, decoder):
                mx.eval(decoder(x[:1]))
            with stages.of("logits and argmax, 1 token", 1, head):
                mx.eval(mx.argmax(head(x[:1])[0]))

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
        floor = max(stage.weights / read, stage.products / product)
        processors = stage.cpu_seconds / sum(stage.seconds)
        line = f"  {name:28}{1e3 * seconds:10.2f} ms on {processors:.1f}"
        if stage.products:
            rate = 2 * stage.products / seconds
            line += f"{stage.weights / seconds / 1e9:8.1f} GB/s{rate / 1e9:8.1f} GFLOP/s"
            line += f"{seconds / floor:8.2f} x floor"
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
