"""alignment_frame: the kernel against its composition, the peers' code, and the roofline; and
what it adds to a decoder step.

    pytest benches/bench_alignment_frame.py --benchmark-enable

The shape is that of Qwen3-ASR-0.6B: 28 layers, 16 query heads over 8 KV heads of 128, with
the 20 best of its measured alignment heads, over 15 s and 30 s of audio. The peers make one
product and one argmax per head and read each back. The roofline is one read of the heads' rows
of keys, as memchr does it on all threads.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import mlx.core as mx
import pytest
from roofline import read_seconds

from voxfast.cache import SlidingKVCache
from voxfast.ops import alignment_frame, linear, rms_norm, rotary_tables, swiglu, use_native

LAYERS, HEADS, KV_HEADS, SIZE = 28, 16, 8, 128
HIDDEN, FFN, VOCABULARY = 1024, 3072, 151936
FIRST, SPARE = 9, 40  # positions before the audio and after it
# layer → query heads
BEST = {
    2: [11], 3: [10], 6: [6, 7, 10, 11, 13], 11: [2, 3, 12, 13], 13: [6, 7], 14: [14, 15],
    16: [14], 19: [7], 20: [3], 21: [8, 9],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def on_the_cpu():
    mx.set_default_device(mx.cpu)


# ---- the op alone ---------------------------------------------------------------------


class Call:
    """Queries of one position and the keys of all layers with alignment heads."""

    def __init__(self, count: int, dtype: mx.Dtype) -> None:
        self.count, self.heads = count, list(BEST.values())
        stored = FIRST + count + SPARE
        self.queries = [mx.random.normal((1, HEADS, 1, SIZE)).astype(dtype) for _ in BEST]
        self.keys = [mx.random.normal((1, KV_HEADS, stored, SIZE)).astype(dtype) for _ in BEST]
        mx.eval(self.queries, self.keys)

    @property
    def key_bytes(self) -> int:
        """Of the rows that the heads look at, each counted once."""
        kv_heads = sum(len({head * KV_HEADS // HEADS for head in used}) for used in self.heads)
        return kv_heads * self.count * SIZE * self.keys[0].dtype.size

    def ours(self) -> mx.array:
        return alignment_frame(self.queries, self.keys, self.heads, FIRST, self.count)


def native(call: Call) -> Callable[[], object]:
    return lambda: call.ours().item()


def composed(call: Call) -> Callable[[], object]:
    def run() -> object:
        with use_native(False):
            return call.ours().item()

    return run


def peers(call: Call) -> Callable[[], object]:
    """One product, one argmax and one read per head."""

    def run() -> int:
        frames = []
        for q, k, used in zip(call.queries, call.keys, call.heads, strict=True):
            for head in used:
                audio = k[0, head * KV_HEADS // HEADS, FIRST : FIRST + call.count]
                frames.append(int(mx.argmax(audio @ q[0, head, 0]).item()))
        return sorted(frames)[len(frames) // 2]

    return run


BACKENDS = {"native": native, "composed": composed, "peers": peers}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("count", [195, 390])
def test_alignment_frame(benchmark, count, dtype, backend):
    call = Call(count, dtype)
    benchmark.group = f"alignment_frame, 20 heads, {count} positions, {dtype}"
    benchmark.extra_info["backend"] = backend
    benchmark.extra_info["roofline"] = read_seconds(call.key_bytes)
    benchmark(BACKENDS[backend](call))


# ---- a step of the decoder ----------------------------------------------------------------


def weights(*shape: int) -> mx.array:
    return (mx.random.normal(shape) * shape[-1] ** -0.5).astype(mx.bfloat16)


class Layer:
    """A decoder layer of Qwen3 with random weights."""

    def __init__(self) -> None:
        self.q, self.o = weights(HEADS * SIZE, HIDDEN), weights(HIDDEN, HEADS * SIZE)
        self.k, self.v = (weights(KV_HEADS * SIZE, HIDDEN) for _ in range(2))
        self.gate, self.up, self.down = (
            weights(*shape) for shape in [(FFN, HIDDEN), (FFN, HIDDEN), (HIDDEN, FFN)]
        )
        self.norms = [mx.ones(n, mx.bfloat16) for n in (HIDDEN, HIDDEN, SIZE, SIZE)]
        self.cache = SlidingKVCache(4096, max_rows=4096)

    def __call__(self, x: mx.array, rotary: tuple) -> tuple[mx.array, mx.array]:
        """x [1, L, hidden] and the queries [1, L, H, D], not rotated."""
        length = x.shape[1]
        h = rms_norm(x, self.norms[0], 1e-6)
        q, k, v = (linear(h, w).reshape(1, length, -1, SIZE) for w in (self.q, self.k, self.v))
        q, k = rms_norm(q, self.norms[2], 1e-6), rms_norm(k, self.norms[3], 1e-6)
        out = self.cache.attend(q, k, v, scale=SIZE**-0.5, rotary=rotary, traditional=False)
        x = x + linear(out.reshape(1, length, -1), self.o)
        h = rms_norm(x, self.norms[1], 1e-6)
        return x + linear(swiglu(linear(h, self.gate), linear(h, self.up)), self.down), q


def rotated(queries: Sequence[mx.array], rotary: tuple) -> list[mx.array]:
    """Queries [1, 1, H, D] as [1, H, 1, D], all rotated at once."""
    cos, sin = (table[:, None] for table in rotary)
    first, second = mx.split(mx.concatenate(queries, axis=1).astype(mx.float32), 2, axis=-1)
    turned = mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    turned = turned.astype(queries[0].dtype)
    return [turned[:, i, :, None] for i in range(len(queries))]


class Decoder:
    """The decoder of the 0.6B shape: 1.2 GB of random weights."""

    def __init__(self) -> None:
        self.embedding = weights(VOCABULARY, HIDDEN)
        self.layers = [Layer() for _ in range(LAYERS)]
        mx.eval(self.embedding, [list(vars(layer).values())[:7] for layer in self.layers])

    def forward(self, x: mx.array) -> tuple[mx.array, list[mx.array], tuple]:
        offset = self.layers[0].cache.offset
        rotary, queries = rotary_tables(offset, x.shape[1], SIZE, 1e6), []
        for layer in self.layers:
            x, q = layer(x, rotary)
            queries.append(q)
        return linear(x[:, -1:], self.embedding), queries, rotary

    def prefill(self, count: int) -> None:
        for layer in self.layers:
            layer.cache.trim(layer.cache.offset)
        logits, _, _ = self.forward(weights(1, FIRST + count, HIDDEN))
        mx.eval(logits, self.state)

    @property
    def state(self) -> list:
        return [layer.cache.state for layer in self.layers]

    def step(self, count: int | None) -> None:
        """Predict a token, and where it is in ``count`` positions of audio; then undo it."""
        logits, queries, rotary = self.forward(self.embedding[None, 77:78])
        found = [mx.argmax(logits)]
        if count is not None:
            queries = rotated([queries[layer] for layer in BEST], rotary)
            keys = [self.layers[layer].cache.state[0] for layer in BEST]
            found.append(alignment_frame(queries, keys, list(BEST.values()), FIRST, count))
        mx.eval(found, self.state)
        for layer in self.layers:
            layer.cache.trim(1)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder()


@pytest.mark.parametrize("count", [195, 390])
def test_decoder_step(benchmark, decoder, count):
    """Steps with and without the op take turns, so that the difference is the op's."""
    without: list[float] = []

    def setup() -> None:
        start = time.perf_counter()
        decoder.step(None)
        without.append(time.perf_counter() - start)

    decoder.prefill(count)
    benchmark.group = f"decoder step of the 0.6B shape, {count} positions of audio, bfloat16"
    benchmark.pedantic(decoder.step, args=(count,), setup=setup, rounds=40, warmup_rounds=2)
    if benchmark.stats is None:
        return
    plain, stats = statistics.median(without[2:]), benchmark.stats.stats
    benchmark.extra_info["without"] = plain
    print(
        f"\n{benchmark.group}: {1e3 * plain:.2f} ms, with alignment_frame "
        f"{1e3 * stats.median:.2f} ms: {100 * (stats.median / plain - 1):+.2f} % "
        f"(of the minima {100 * (stats.min / min(without[2:]) - 1):+.2f} %)"
    )
