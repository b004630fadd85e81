"""The stages of Voxtral-Mini-4B-Realtime, one layer of each, native against composed.

    pytest benches/bench_stages.py --benchmark-enable

Random weights of the real shapes, plain bfloat16 and 4-bit in groups of 64. A step of the
encoder takes the 8 log-mel frames of a position (with the conv stem and the adapter), a step
of the decoder one position; both windows are full. The real model has 32 and 26 layers. The
roofline is one read of the weights and of the windows' keys and values.
"""

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from roofline import read_seconds

from voxfast.models.voxtral.config import AudioArgs, TransformerArgs, VoxtralArgs
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.nn import serve_layers
from voxfast.ops import use_native

ARGS = VoxtralArgs(
    audio=AudioArgs(n_mels=128, global_log_mel_max=1.5),
    encoder=TransformerArgs(1280, 1, 32, 32, 64, 5120, 750, 1e-5, 1e6),
    decoder=TransformerArgs(3072, 1, 32, 8, 128, 9216, 8192, 1e-5, 1e6),
    vocab_size=1024,  # of 131072: the last product is a matter of its own
    downsample_factor=4,
    cond_dim=32,
)
FRAMES = 8


@cache
def model(weights: str) -> Voxtral:
    voxtral = Voxtral(ARGS)
    voxtral.update(tree_map(lambda x: x.astype(mx.bfloat16), voxtral.parameters()))
    if weights == "4-bit":
        nn.quantize(
            voxtral,
            64,
            4,
            class_predicate=lambda _, m: isinstance(m, nn.Linear) and m.weight.size > 1e6,
        )
    serve_layers(voxtral)
    mx.eval(voxtral.parameters())
    return voxtral


def size(*trees: object) -> int:
    return sum(array.nbytes for tree in trees for _, array in tree_flatten(tree))


@pytest.mark.parametrize("backend", ["native", "composed"])
@pytest.mark.parametrize("weights", ["bfloat16", "4-bit"])
def test_encoder(benchmark, weights, backend):
    voxtral = model(weights)
    mel = mx.random.normal((FRAMES, ARGS.audio.n_mels)).astype(mx.bfloat16)
    state = voxtral.encoder_state(FRAMES, start=10_000)

    def step() -> None:
        mx.eval(voxtral.encode([mel[None]], [[state]])[0], state.arrays())

    step()
    read = size(voxtral.encoder.parameters(), voxtral.adapter.parameters(), state.arrays())
    run(benchmark, f"encoder, 1 layer, stem, adapter, {weights}", backend, step, read)


@pytest.mark.parametrize("backend", ["native", "composed"])
@pytest.mark.parametrize("weights", ["bfloat16", "4-bit"])
def test_decoder(benchmark, weights, backend):
    voxtral = model(weights)
    audio = mx.random.normal((1, ARGS.decoder.dim)).astype(mx.bfloat16)
    state = voxtral.decoder_state(6, 1, start=10_000)

    def step() -> None:
        rows = [DecoderRows(audio, mx.array([5]), state)]
        mx.eval(voxtral.decode(rows), state.arrays())

    step()
    read = size(voxtral.decoder.layers[0].parameters(), state.arrays())
    run(benchmark, f"decoder, 1 layer, {weights}", backend, step, read)


def run(benchmark, group, backend, step, read):
    benchmark.group = f"Voxtral 4B, {group}"
    benchmark.extra_info["backend"] = backend
    benchmark.extra_info["roofline"] = read_seconds(read)
    with use_native(backend == "native"):
        benchmark(step)
