"""sliding_attention writes its rings in place, and never into what somebody else holds."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import inputs

from voxfast._native import _ext
from voxfast.bench.random_models import VOXTRAL_4B, random_voxtral
from voxfast.cache import SlidingKVCache
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.tokens import TokenStream, encode, evaluate
from voxfast.ops import sliding_attention, use_native
from voxfast.timed import Token

pytestmark = pytest.mark.usefixtures("on_the_cpu")


class Rings:
    """A caller that keeps the rings only, as a cache does."""

    def __init__(self, dtype=mx.float32, function=sliding_attention):
        x = inputs(4, 2, size=64, capacity=600, dtype=dtype)
        self.new = {name: x[name] for name in ("q", "k", "v")}
        self.rings = (x["keys"], x["values"])
        mx.eval(self.new, self.rings)
        self.function = function
        self.offset = 0

    def step(self, q=None):
        new = self.new if q is None else {**self.new, "q": q}
        offset = mx.array([self.offset], dtype=mx.int64)
        out, *self.rings = self.function(
            *new.values(), *self.rings, offset, window=500, scale=0.125
        )
        self.offset += 1
        return out


def eager(rings):
    for _ in range(200):
        out = rings.step()
        mx.eval(out, rings.rings)


def eager_output_only(rings):
    for _ in range(200):
        mx.eval(rings.step())


def eager_rings_only(rings):
    for _ in range(200):
        rings.step()
        mx.eval(rings.rings)


def chained_by_the_rings(rings):
    for _ in range(20):
        outs = [rings.step() for _ in range(4)]
        mx.eval(outs, rings.rings)


def chained_by_the_output(rings):
    for _ in range(20):
        out = rings.new["q"]
        for _ in range(4):
            out = rings.step(out)
        mx.eval(out)


def asynchronous(rings):
    out = rings.new["q"]
    for _ in range(200):
        out = rings.step(out)
        mx.async_eval(out)
    mx.eval(out)


@pytest.mark.parametrize(
    "use",
    [
        eager,
        eager_output_only,
        eager_rings_only,
        chained_by_the_rings,
        chained_by_the_output,
        asynchronous,
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_rings_are_written_in_place(use, compiled):
    function = sliding_attention
    if compiled:
        graph = mx.compile(lambda *arrays: sliding_attention(*arrays, window=500, scale=0.125))

        def function(*arrays, window, scale):
            return graph(*arrays)

    rings = Rings(function=function)
    before = _ext.ring_copies()
    use(rings)
    assert _ext.ring_copies() == before


def test_a_ring_that_is_still_held_is_left_alone():
    rings = Rings()
    for _ in range(3):
        held = tuple(rings.rings)
        contents = [np.array(ring) for ring in held]
        before = _ext.ring_copies()
        out = rings.step()
        mx.eval(out, rings.rings)
        assert _ext.ring_copies() == before + 2
        for ring, content in zip(held, contents, strict=True):
            np.testing.assert_array_equal(np.array(ring), content)
        assert not mx.array_equal(held[0], rings.rings[0])
        del held
        before = _ext.ring_copies()
        mx.eval(rings.step())
        assert _ext.ring_copies() == before


def test_a_view_of_a_ring_is_left_alone():
    rings = Rings()
    mx.eval(rings.step())
    view = rings.rings[0][:, 1]
    mx.eval(view)
    content, before = np.array(view), _ext.ring_copies()
    mx.eval([rings.step() for _ in range(3)])
    assert _ext.ring_copies() == before + 1  # the keys, once
    np.testing.assert_array_equal(np.array(view), content)


def test_one_ring_for_both_is_not_written_twice():
    x = inputs()
    x["values"] = x["keys"]
    out, keys, values = sliding_attention(**x, offset=2, window=4, scale=1.0)
    mx.eval(out, keys, values)
    assert mx.array_equal(keys[:, :, 2], x["k"][:, 0])
    assert mx.array_equal(values[:, :, 2], x["v"][:, 0])


def test_nothing_is_released_while_a_transformation_traces():
    x = inputs()

    def loss(q):
        out, keys, _ = sliding_attention(**{**x, "q": q}, offset=2, window=4, scale=1.0)
        return mx.sum(out) + mx.sum(keys)

    with pytest.raises(ValueError, match=r"(?i)not implemented"):
        mx.grad(loss)(x["q"])
    assert mx.isfinite(loss(x["q"]))


# ---- whole passes, composed of MLX's ops, too ---------------------------------------------

ROOM = 40_000  # rows of a ring: 20 MB each, far more than all else of these models


def enlarge(caches: list[SlidingKVCache]) -> int:
    """Gives all rings many more rows; returns the bytes of the smallest one."""
    for cache in caches:
        cache.max_rows = ROOM
        rings = tuple(
            mx.concatenate([ring, mx.zeros((*ring.shape[:2], ROOM, ring.shape[3]))], axis=2)
            for ring in cache.state
        )
        mx.eval(rings)
        cache._rings = rings
    return min(ring.nbytes for cache in caches for ring in cache.state)


def new_memory(run) -> int:
    """The most bytes that a function allocates at a time, beyond what is held before."""
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    run()
    return mx.get_peak_memory() - before


@pytest.fixture(scope="module")
def small_voxtral() -> Voxtral:
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "hidden_dim": 64}
    args = replace(
        VOXTRAL_4B,
        encoder=replace(VOXTRAL_4B.encoder, **sizes, sliding_window=24),
        decoder=replace(VOXTRAL_4B.decoder, **sizes, head_dim=64, sliding_window=16),
        vocab_size=64,
        cond_dim=8,
    )
    model = random_voxtral(None, args)
    model.set_dtype(mx.float32)
    return model


@pytest.fixture
def tokens(small_voxtral) -> TokenStream:
    tokenizer = SimpleNamespace(bos=1, pad=32, word=33, n_left_pad=8, piece=lambda t: None)
    stream = TokenStream(small_voxtral, tokenizer, 2, block=8)
    noise = np.random.default_rng(0).standard_normal(12 * 1280).astype(np.float32)
    assert advance(stream, noise[:40]) == []
    advance(stream, noise[40 : 40 + 8 * 1280])
    return stream


def advance(stream: TokenStream, samples: np.ndarray) -> list[Token]:
    made = []
    hear(stream, samples)
    while stream.due:
        made += stream.decode()
    return made


def hear(stream: TokenStream, samples: np.ndarray) -> None:
    encode([(stream, samples)])
    if not stream.due:
        evaluate([stream])


@pytest.mark.parametrize("native", [True, False])
def test_no_position_of_voxtral_copies_a_ring(tokens, native):
    with use_native(native):
        for length in (8, 1, 8):  # positions of a block; of several the next is prepared
            ring = enlarge(tokens._encoder.caches + tokens._decoder.caches)
            noise = np.zeros(length * 1280, np.float32)
            made = []
            grown = new_memory(lambda: made.extend(advance(tokens, noise)))  # noqa: B023
            assert len(made) == length
            assert grown < ring / 4


@pytest.mark.parametrize("native", [True, False])
def test_no_token_of_qwen_copies_a_ring(qwen_folder, native):
    model = load_qwen3_asr(qwen_folder, mx.float32)
    dim = model.embed([1]).shape[1]
    audio = Audio(mx.random.normal((30, dim)), 0)
    with use_native(native):
        decoder = Decoder(model, range(1, 4), {0: [0], 1: [1]})
        token = run_alone(decoder.read(audio, range(5, 9))).id
        decoder._prepared = None
        ring = enlarge(decoder._state.caches)

        def write() -> None:
            nonlocal token
            for _ in range(6):
                token = run_alone(decoder.write(token)).id

        assert new_memory(write) < ring / 4


def note_events(monkeypatch, network) -> list[str]:
    """When the network's decoder is called, and when the host waits."""
    events = []
    decode, wait = network.decode, mx.eval

    def decoding(self, *arguments):
        events.append("decode")
        return decode(self, *arguments)

    def waiting(*arrays):
        events.append("wait")
        wait(*arrays)

    monkeypatch.setattr(network, "decode", decoding)
    monkeypatch.setattr(mx, "eval", waiting)
    return events


def test_voxtral_prepares_the_next_position_and_waits_once(tokens, monkeypatch):
    events = note_events(monkeypatch, Voxtral)
    assert len(advance(tokens, np.zeros(3 * 1280, np.float32))) == 3
    assert events == ["decode", "decode", "wait", "decode", "wait", "wait"]
    events.clear()
    assert len(advance(tokens, np.zeros(1280, np.float32))) == 1
    assert events == ["decode", "wait"]


def test_qwen_prepares_the_next_token_and_waits_once(qwen_folder, monkeypatch):
    model = load_qwen3_asr(qwen_folder, mx.float32)
    decoder = Decoder(model, range(1, 4), {0: [0], 1: [1]})
    audio = Audio(mx.random.normal((30, model.embed([1]).shape[1])), 0)
    events = note_events(monkeypatch, Qwen3ASR)
    token = run_alone(decoder.read(audio, range(5, 9)))
    run_alone(decoder.write(run_alone(decoder.write(token.id)).id))
    assert events == ["decode", "decode", "wait", "decode", "wait", "decode", "wait"]


def test_tokens_do_not_depend_on_what_is_prepared(small_voxtral):
    """Nor on a caller that brings audio before all tokens of a block are written."""
    noise = np.random.default_rng(1).standard_normal(30 * 1280).astype(np.float32)
    found = []
    for block in (1, 5):
        tokenizer = SimpleNamespace(bos=1, pad=32, word=33, n_left_pad=8, piece=lambda t: None)
        stream = TokenStream(small_voxtral, tokenizer, 2, block=block)
        made = advance(stream, noise[:40])
        for begin in range(40, 25 * 1280, 1280 * block):
            hear(stream, noise[begin : begin + 1280 * block])
            while stream.due and (not made or len(made) % 3):
                made += stream.decode()
            if stream.due:
                made += stream.decode()
        made += advance(stream, noise[:1280])
        found.append([token.id for token in made])
    count = min(map(len, found))
    assert count > 10
    assert found[0][:count] == found[1][:count]
