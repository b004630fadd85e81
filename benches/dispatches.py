"""Dispatches of a GPU stream, counted: ours, and those of a model written as mlx-lm writes them.

    python benches/dispatches.py [--json FILE]

Builds the graphs that a GPU stream would get, on any machine, and counts their nodes without
evaluating them. A view (reshape, transpose, slice ...) is none, MLX's fused kernels are one each,
a compiled chain is one, a concatenation is one copy per input. Both models have all their layers,
but small ones: the count does not depend on their size. What is counted is the steady state: the
decoder in mid-stream, the encoder with a full window.

Prints JSON: for ``attention_per_layer``, ``decoder_layer``, ``encoder_layer`` (by new rows),
``position`` of Voxtral (log-mel to token) and ``token`` of Qwen3-ASR the counts of ``voxfast``
and ``mlx-lm``, and in ``ops`` those of each op.
"""

import argparse
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from voxfast._native import _ext
from voxfast.bench import random_models
from voxfast.bench.plain import PlainCache, PlainQwen3ASR, PlainVoxtral, attend
from voxfast.bench.random_models import VOXTRAL_4B, qwen3_config, random_qwen3_asr, random_voxtral
from voxfast.cache import SlidingKVCache
from voxfast.models.qwen3_asr.network import DecoderRows as QwenRows
from voxfast.models.qwen3_asr.network import KeptState
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.ops import (
    SCALE_BYTES,
    alignment_frame,
    gelu,
    greedy,
    log_mel,
    rotary_tables,
    sliding_attention,
    swiglu,
    use_native,
)
from voxfast.rows import History

VIEWS = frozenset(
    [
        "AsStrided",
        "Broadcast",
        "BroadcastAxes",
        "ExpandDims",
        "Flatten",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "StopGradient",
        "Transpose",
        "Unflatten",
        "View",
    ]
)
NODE = re.compile(r"\{ \d+ \[label =\"(\w+)\"")
ROWS = (1, 4, 24)
STORED = 1000  # positions before those that are counted
BFLOAT16 = mx.bfloat16


# ---- counting ---------------------------------------------------------------------------


def count(*arrays: Any) -> Counter[str]:
    """The dispatches of an unevaluated graph by the name of the op."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays)
    found: Counter[str] = Counter()
    name = ""
    for line in text.getvalue().splitlines():
        node = NODE.match(line)
        if node:
            name = node[1]
            found[name] += name not in VIEWS and name != "Concatenate"
        elif "->" in line and line.startswith('"') and name == "Concatenate":
            found[name] += 1  # an input is copied
        elif not line.startswith('"'):
            name = ""
    return +found


def total(*arrays: Any) -> int:
    return sum(count(*arrays).values())


@contextmanager
def gpu_graphs() -> Iterator[None]:
    """Inside, graphs are those of a GPU stream: fused kernels are single nodes."""

    def fused(name: str) -> Any:
        def call(*inputs: Any, **options: Any) -> mx.array:
            return _ext.fused_kernel(name, [x for x in inputs if isinstance(x, mx.array)])

        return call

    before = _ext.set_gpu_graphs(True)
    try:
        with use_native(False), ExitStack() as patches:
            for name in ("rms_norm", "layer_norm", "rope", "scaled_dot_product_attention"):
                patches.enter_context(patch.object(mx.fast, name, fused(name)))
            # On a GPU, layers stay MLX's own.
            patches.enter_context(patch.object(random_models, "serve_layers"))
            yield
    finally:
        _ext.set_gpu_graphs(before)


# ---- states in mid-stream -----------------------------------------------------------------


def random(*shape: int, dtype: mx.Dtype = BFLOAT16) -> mx.array:
    x = mx.random.normal(shape).astype(dtype)
    mx.eval(x)
    return x


def filled(cache: SlidingKVCache, heads: int, size: int, stored: int) -> SlidingKVCache:
    """The cache as it is after ``stored`` positions."""
    capacity = min(cache.window + cache.max_rows - 1, -(-(stored + 64) // 256) * 256)
    cache._rings = (random(1, heads, capacity, size), random(1, heads, capacity, size))
    cache._rows = cache._reached = stored
    return cache


def plain_cache(heads: int, size: int, stored: int) -> PlainCache:
    cache = PlainCache()
    cache.keys, cache.values = (random(1, heads, stored + 64, size) for _ in range(2))
    cache.offset = stored
    return cache


def attention(
    rows: int, *, window: int, capacity: int, stored: int, kv_bits: int | None = None
) -> Counter[str]:
    """Everything between the products that make queries, keys and values, and the next one."""
    q, k, v = random(1, rows, 8, 64), random(1, rows, 2, 64), random(1, rows, 2, 64)
    shape = (1, 2, capacity, 64 if kv_bits is None else 64 + SCALE_BYTES)
    dtype = BFLOAT16 if kv_bits is None else mx.int8
    keys, values = random(*shape, dtype=dtype), random(*shape, dtype=dtype)
    rotary = rotary_tables(stored, rows, 64, 1e6)
    out = sliding_attention(
        q, k, v, keys, values, stored, window=window, scale=0.125, rotary=rotary
    )
    return count(out[0].reshape(1, rows, -1), *out[1:])


def plain_attention(rows: int) -> Counter[str]:
    q, k, v = random(1, rows, 8, 64), random(1, rows, 2, 64), random(1, rows, 2, 64)
    cache = plain_cache(2, 64, STORED)
    return count(attend(q, k, v, cache, 1e6, True), *cache.state)


# ---- the models ---------------------------------------------------------------------------


def small_voxtral() -> Voxtral:
    encoder = replace(VOXTRAL_4B.encoder, dim=64, n_heads=2, n_kv_heads=2, hidden_dim=64)
    decoder = replace(VOXTRAL_4B.decoder, dim=64, n_heads=4, n_kv_heads=2, hidden_dim=64)
    args = replace(VOXTRAL_4B, encoder=encoder, decoder=decoder, vocab_size=64, cond_dim=8)
    return random_voxtral(None, args)


class VoxtralInMidStream:
    """Voxtral after 1000 positions, its encoder with a full window."""

    def __init__(self) -> None:
        self.model = small_voxtral()
        self.state = self.model.decoder_state(6, 39)
        self.encoder = self.model.encoder_state(4 * 39)
        for cache in self.encoder.caches:
            filled(cache, 2, 64, 4 * STORED)
        for cache in self.state.caches:
            filled(cache, 2, 128, STORED)
        mx.eval(self.state.scales, self.encoder.tails)
        # A position of the stream takes 1280 samples, and one of the convolutions has a tail of 1.
        self.samples, self.token = random(1520, dtype=mx.float32), mx.array([3])
        self.plain = PlainVoxtral(self.model)
        self.plain.encoder_caches = [plain_cache(2, 64, STORED) for _ in self.encoder.caches]
        self.plain.decoder_caches = [plain_cache(2, 128, STORED) for _ in self.state.caches]
        mx.eval(self.plain.scales, self.plain.tails, self.plain.filterbank)

    def decoder_layer(self, rows: int) -> Counter[str]:
        x, cache = random(1, rows, 64), filled(SlidingKVCache(8192, max_rows=39), 2, 128, STORED)
        rotary = rotary_tables(STORED, rows, 128, 1e6)
        x = self.model.decoder.layers[0](x, self.state.scales[0], History([cache], [rows], rotary))
        return count(x, *cache.state)

    def plain_decoder_layer(self, rows: int) -> Counter[str]:
        x, cache = random(1, rows, 64), plain_cache(2, 128, STORED)
        layer = self.model.decoder.layers[0]
        x = self.plain.decoder_layer(layer, x, self.plain.scales[0], cache)
        return count(x, *cache.state)

    def encoder_layer(self, rows: int) -> Counter[str]:
        cache = filled(SlidingKVCache(750, max_rows=156), 2, 64, 4 * STORED)
        rotary = rotary_tables(4 * STORED, rows, 64, 1e6)
        x = self.model.encoder.layers[0](random(1, rows, 64), History([cache], [rows], rotary))
        return count(x, *cache.state)

    def plain_encoder_layer(self, rows: int) -> Counter[str]:
        cache = plain_cache(2, 64, STORED)
        x = self.plain.encoder_layer(self.model.encoder.layers[0], random(1, rows, 64), cache)
        return count(x, *cache.state)

    def position(self) -> Counter[str]:
        mel = log_mel(self.samples, log_floor=-6.5, shift=4.0, scale=0.25)
        (audio,) = self.model.encode([mel[None]], [[self.encoder]])
        assert audio is not None
        token, probability = greedy(self.model.decode([DecoderRows(audio, self.token, self.state)]))
        return count(token, probability, self.encoder.arrays(), self.state.arrays())

    def plain_position(self) -> Counter[str]:
        token, probabilities = self.plain.position(self.samples, self.token)
        return count(token, probabilities, self.plain.state())


def qwen_token() -> tuple[Counter[str], Counter[str]]:
    """A token of Qwen3-ASR, ours with the attended frame by 10 layers of alignment heads."""
    config = qwen3_config((1, 64, 2, 64), (28, 64, 64))
    text = config["thinker_config"]["text_config"]
    text |= {"vocab_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    _, model = random_qwen3_asr(config, None)
    size = model.args.text.head_dim
    caches = [filled(SlidingKVCache(65536, max_rows=65536), 2, size, STORED) for _ in range(28)]
    state, layers = KeptState(caches), list(range(12, 22))
    logits, (queries,) = model.decode([QwenRows([[3]], state, layers)])
    keys = [state.caches[layer].state[0] for layer in layers]
    frame = alignment_frame(queries, keys, [[1, 2]] * len(layers), 9, 400)
    ours = count(*greedy(logits), frame, state.arrays())
    plain = PlainQwen3ASR(model)
    plain.caches = [plain_cache(2, size, STORED) for _ in range(28)]
    return ours, count(*plain.step(mx.array([3])), plain.state())


# ---- each op --------------------------------------------------------------------------------


def ops() -> dict[str, int]:
    """One call of each op, in half precision but for log-mel."""
    samples = mx.array(np.zeros(16000, np.float32))
    x = random(1, 64)
    queries, keys = [random(1, 8, 1, 64)] * 4, [random(1, 2, 64, 64)] * 4
    return {
        "alignment_frame, 4 layers": total(alignment_frame(queries, keys, [[1, 2]] * 4, 3, 50)),
        "gelu": total(gelu(x)),
        "greedy": total(*greedy(x)),
        "log_mel": total(log_mel(samples, log_floor=-6.5, shift=4.0, scale=0.25)),
        "swiglu": total(swiglu(x, x)),
    }


def by_rows(ours: Any, plain: Any) -> dict[str, dict[str, int]]:
    return {
        name: {str(rows): sum(function(rows).values()) for rows in ROWS}
        for name, function in (("voxfast", ours), ("mlx-lm", plain))
    }


def measure() -> dict[str, Any]:
    """All counts; see the module."""
    with gpu_graphs():
        voxtral = VoxtralInMidStream()
        cases = {
            "growing": {"window": 2000, "capacity": 2000, "stored": STORED},
            "window full": {"window": 750, "capacity": 773, "stored": 4 * STORED},
            "rows wrap around": {"window": 750, "capacity": 773, "stored": 773 * 5 - 1},
            "8 bits": {"window": 2000, "capacity": 2000, "stored": STORED, "kv_bits": 8},
        }
        attention_per_layer: dict[str, Any] = {
            f"voxfast, {name}": {str(rows): sum(attention(rows, **case).values()) for rows in ROWS}
            for name, case in cases.items()
        }
        attention_per_layer["mlx-lm"] = {
            str(rows): sum(plain_attention(rows).values()) for rows in ROWS
        }
        token, plain_token = (sum(found.values()) for found in qwen_token())
        return {
            "attention_per_layer": attention_per_layer,
            "decoder_layer": by_rows(voxtral.decoder_layer, voxtral.plain_decoder_layer),
            "encoder_layer": by_rows(voxtral.encoder_layer, voxtral.plain_encoder_layer),
            "position": {
                "voxfast": sum(voxtral.position().values()),
                "mlx-lm": sum(voxtral.plain_position().values()),
            },
            "token": {"voxfast": token, "mlx-lm": plain_token},
            "ops": ops(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: stdout")
    options = parser.parse_args()
    text = json.dumps(measure(), indent=1)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
