"""Rings in 8 bits: what is stored, what is read, and how far it is from what was given."""

from copy import copy

import mlx.core as mx
import numpy as np
import pytest
from attention_reference import (
    ANY_STREAM,
    DTYPES,
    TOLERANCE,
    attention,
    error,
    inputs,
    normal,
    numbers,
    quantized,
    rotate,
    stream,
    to_numpy,
)
from evaluation import EvalItem
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfast
from voxfast._native import _ext
from voxfast.cache import SlidingKVCache
from voxfast.ops import alignment_frame, rotary_tables, sliding_attention, use_native

SIZES = st.sampled_from([1, 3, 31, 32, 64, 80, 128, 256])
CHUNKS = st.lists(st.sampled_from([1, 2, 3, 5, 7, 13, 31, 97]), min_size=1, max_size=4)

pytestmark = pytest.mark.usefixtures("on_the_cpu")


def rings(*shape: int) -> list[mx.array]:
    """Empty rings of [B, H_kv, C, D]."""
    return [quantized(mx.zeros(shape)) for _ in range(2)]


# ---- what is stored ---------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=SIZES,
    length=st.sampled_from([1, 2, 7, 40]),
    offset=st.sampled_from([0, 5, 93, 2**40 + 11]),
    magnitude=st.sampled_from([1e-38, 1e-29, 1e-3, 1.0, 5e4, 1e37]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_rows_are_codes_and_their_scale(native, size, length, offset, magnitude, dtype, seed):
    rng = np.random.default_rng(seed)
    q, k, v = (
        (magnitude * normal(rng, (2, length, heads, size), mx.float32)).astype(dtype)
        for heads in (4, 2, 2)
    )
    k[0, 0, 0] = 0
    with use_native(native):
        _, *stored = sliding_attention(q, k, v, *rings(2, 2, 50, size), offset, window=3, scale=0.0)
        mx.eval(stored)
    slots = mx.array(np.arange(offset, offset + length) % 50)
    for ring, given_rows in zip(stored, (k, v), strict=True):
        assert (ring.dtype, ring.shape) == (mx.int8, (2, 2, 50, size + 4))
        expected = quantized(given_rows.swapaxes(1, 2))
        if np.isfinite(to_numpy(given_rows)).all():
            np.testing.assert_array_equal(np.array(ring[:, :, slots]), np.array(expected))
        assert not np.delete(np.array(ring), np.array(slots), axis=2).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_of_a_number_is_within_half_a_step_of_its_row(dtype):
    x = normal(np.random.default_rng(0), (300, 77), dtype)
    found, true = numbers(quantized(x)), to_numpy(x)
    largest = np.abs(true).max(axis=-1, keepdims=True)
    assert (np.abs(found - true) <= largest / 254 * (1 + 1e-5)).all()
    assert np.abs(np.abs(found).max(axis=-1, keepdims=True) / largest - 1).max() < 1e-6


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [31, 64])
@pytest.mark.parametrize("length", [1, 20])
def test_a_row_with_a_number_that_is_none_is_none(native, bad, size, length):
    for name in ("k", "v"):
        x = inputs(4, 2, size=size, length=length, batch=2)
        x["keys"], x["values"] = rings(2, 2, 60, size)
        poisoned = np.array(x[name])
        poisoned[0, -1, 0, size // 2] = bad
        with use_native(native):
            clean = sliding_attention(**x, offset=70, window=30, scale=0.1)[0]
            x[name] = mx.array(poisoned)
            out, *stored = sliding_attention(**x, offset=70, window=30, scale=0.1)
            mx.eval(clean, out, stored)
        ring = numbers(stored["kv".index(name)])
        slot = (70 + length - 1) % 60
        assert np.isnan(ring[0, 0, slot]).all()
        ring[0, 0, slot] = 0
        assert np.isfinite(ring).all()
        assert mx.array_equal(out[1], clean[1])
        assert mx.array_equal(out[0, :, 2:], clean[0, :, 2:])
        assert mx.isnan(out[0, -1, :2]).any()


@pytest.mark.parametrize("native", [True, False])
def test_keys_are_rotated_before_they_are_stored(native):
    x = inputs(length=3, size=32, capacity=9)
    x["keys"], x["values"] = rings(1, 2, 9, 32)
    with use_native(native):
        _, keys, _ = sliding_attention(
            **x, offset=10, window=4, scale=0.2, rotary=rotary_tables(10, 3, 32, 1e4)
        )
        mx.eval(keys)
    expected = rotate(to_numpy(x["k"]), 10, 1e4, True).transpose(0, 2, 1, 3)
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    off = np.abs(numbers(keys)[:, :, 1:4] - expected)
    assert (off <= largest / 254 * (1 + 1e-5) + 1e-6).all()


# ---- what is read -----------------------------------------------------------------------


@settings(max_examples=80, deadline=None, derandomize=True)
@given(size=SIZES, chunks=CHUNKS, **ANY_STREAM)
def test_any_stream_attends_to_the_stored_numbers(
    heads, size, window, chunks, slack, batch, length, dtype, native
):
    rng = np.random.default_rng(length)
    q = normal(rng, (batch, length, heads[0], size), dtype)
    k, v = (normal(rng, (batch, length, heads[1], size), dtype) for _ in range(2))
    with use_native(native):
        capacity = window + max(chunks) - 1 + slack
        out = stream(q, k, v, chunks, window, capacity=capacity, kv_bits=8)
        mx.eval(out)
    stored = [numbers(quantized(x)) for x in (k, v)]
    reference = attention(to_numpy(q), *stored, window, size**-0.5)
    assert out.dtype == dtype
    # MLX's attention rounds what is stored and the weights to the dtype, too.
    assert error(out, reference) < TOLERANCE[dtype] * (1 if native else 16)


def error_bound(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int, scale: float):
    """How far [B, L, H, 1] attention may be off: scores by e, and so weights by e^2e - 1 in all."""
    group = q.shape[2] // k.shape[2]
    step_k, largest_v = (
        np.repeat(np.abs(x).max(axis=-1), group, axis=2) for x in (k / 254, v)
    )  # [B, N, H]
    seen = np.lib.stride_tricks.sliding_window_view
    pad = [(0, 0), (window - 1, 0), (0, 0)]
    step_k, largest_v = (
        seen(np.pad(x, pad), window, axis=1).max(axis=-1)[:, -q.shape[1] :]
        for x in (step_k, largest_v)
    )
    off = scale * np.abs(q).sum(axis=-1) * step_k
    return (np.expm1(2 * off) * largest_v + largest_v / 254)[..., None]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    heads=st.sampled_from([(1, 1), (4, 2), (9, 1)]),
    size=SIZES,
    window=st.sampled_from([1, 3, 64, 300]),
    chunks=CHUNKS,
    length=st.integers(1, 150),
    flat=st.booleans(),
)
def test_attention_is_as_near_as_the_steps_allow(heads, size, window, chunks, length, flat):
    """Flat: queries of zero weigh all keys alike, and the error is that of the values."""
    rng = np.random.default_rng(length)
    q = normal(rng, (1, length, heads[0], size), mx.float32) * (0.0 if flat else 0.3)
    k, v = (normal(rng, (1, length, heads[1], size), mx.float32) for _ in range(2))
    out = stream(q, k, v, chunks, window, kv_bits=8)
    true = [to_numpy(x) for x in (q, k, v)]
    exact = attention(*true, window, size**-0.5)
    bound = error_bound(*true, window, size**-0.5)
    assert (np.abs(to_numpy(out) - exact) <= bound + TOLERANCE[mx.float32]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "length"), [((8, 2), 1), ((4, 4), 4), ((4, 2), 45)])
@pytest.mark.parametrize("offset", [[0, 5_000_003], 0, 40, 5_000_003])
def test_native_equals_composed(dtype, heads, length, offset):
    x = inputs(*heads, size=64, length=length, capacity=120, batch=2, dtype=dtype)
    x["keys"], x["values"] = quantized(x["keys"]), quantized(x["values"])
    if isinstance(offset, list):
        offset = mx.array(offset, dtype=mx.int64)
    rotary = rotary_tables(5_000_003, length, 64, 1e6)
    options = {"window": 70, "scale": 0.125, "rotary": rotary}
    native = sliding_attention(**x, offset=offset, **options)
    with use_native(False):
        composed = sliding_attention(**x, offset=offset, **options)
    # Rotated keys may differ in their last bit, and so their codes by one.
    assert np.abs(numbers(native[1]) - numbers(composed[1])).max() < 4.5 / 127
    np.testing.assert_array_equal(np.array(native[2]), np.array(composed[2]))
    assert error(native[0], to_numpy(composed[0])) < 16 * TOLERANCE[dtype] + 1e-3


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [3, 64, 80, 128])
@pytest.mark.parametrize("length", [1, 3])
def test_alignment_heads_read_stored_keys(native, size, length):
    rng = np.random.default_rng(size)
    q = normal(rng, (2, 6, length, size), mx.bfloat16)
    k = quantized(normal(rng, (2, 3, 240, size), mx.float32))
    scores = np.einsum("bhld,bhsd->bhls", to_numpy(q), np.repeat(numbers(k), 2, axis=1))
    for layout in (k, mx.array(np.array(k).transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)):
        for used in ([0], [1, 4, 5], list(range(6))):
            with use_native(native):
                found = np.array(alignment_frame([q], [layout], [used], 20, 195))
            frames = np.sort(scores[:, used, :, 20:215].argmax(axis=-1), axis=1)
            np.testing.assert_array_equal(found, frames[:, len(used) // 2])


# ---- caches -------------------------------------------------------------------------------


def qkv(rng: np.random.Generator, length: int) -> list[mx.array]:
    return [normal(rng, (1, length, heads, 48), mx.bfloat16) for heads in (4, 2, 2)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    window=st.sampled_from([1, 5, 40]),
    block=st.sampled_from([1, 16]),
    moves=st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0, 0, 1, 3, 8])), max_size=40),
)
def test_trimming_equals_never_having_written(window, block, moves):
    """Bit for bit, also beside a copy that goes another way."""
    rng = np.random.default_rng(len(moves))
    cache = SlidingKVCache(window, max_rows=8, block=block, kv_bits=8)
    kept = [mx.zeros((1, 0, heads, 48), mx.bfloat16) for heads in (4, 2, 2)]
    for length, back in moves:
        new = qkv(rng, length)
        fork = copy(cache)
        fork.attend(*qkv(rng, length), scale=0.2)
        mx.eval(fork.state)
        cache.attend(*new, scale=0.2)
        kept = [mx.concatenate([a, b], axis=1) for a, b in zip(kept, new, strict=True)]
        back = min(back, length)
        if cache._most_trimmed() >= back:
            cache.trim(back)
            kept = [x[:, : x.shape[1] - back] for x in kept]
    straight = SlidingKVCache(window, max_rows=8, kv_bits=8)
    for first in range(0, kept[0].shape[1], 7):
        straight.attend(*(x[:, first : first + 7] for x in kept), scale=0.2)
    assert cache.offset == straight.offset
    last = qkv(rng, 5)
    assert mx.array_equal(cache.attend(*last, scale=0.2), straight.attend(*last, scale=0.2))


def test_memory_is_that_of_the_codes_and_scales_and_nothing_is_copied(monkeypatch):
    monkeypatch.setattr("voxfast.cache.MAX_FULL_RING_BYTES", 0)
    rng = np.random.default_rng(3)
    cache = SlidingKVCache(600, max_rows=8, kv_bits=8)
    for _ in range(3):
        cache.attend(*qkv(rng, 8), scale=0.2)
        mx.eval(cache.state)
    assert sum(ring.nbytes for ring in cache.state) == 2 * 2 * 256 * (48 + 4)
    before = _ext.ring_copies()
    for length in (1, 8, 3) * 100:
        out = cache.attend(*qkv(rng, length), scale=0.2)
        mx.eval(out, cache.state)
    assert _ext.ring_copies() == before
    assert sum(ring.nbytes for ring in cache.state) == 2 * 2 * (600 + 7) * (48 + 4)


# ---- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        ((1, 2, 8, 16), (1, 2, 8, 16), r"keys must be .* or \[B, H_kv, C, D \+ 4\] of int8"),
        ((1, 2, 8, 20), (1, 2, 8, 16), "values must be"),
        ((1, 2, 8, 20), None, "same capacity and dtype"),
        ((1, 2, 8, 20), (1, 2, 9, 20), "same capacity"),
        ((1, 2, 1, 20), (1, 2, 1, 20), "C >= L"),
    ],
)
def test_rings_that_do_not_fit(native, keys, values, message):
    x = inputs(length=2)
    x["keys"] = mx.zeros(keys, mx.int8)
    if values is not None:
        x["values"] = mx.zeros(values, mx.int8)
    with use_native(native), pytest.raises(ValueError, match=message):
        sliding_attention(**x, offset=2, window=4, scale=1.0)


@pytest.mark.parametrize("kv_bits", [4, 16, 0, True, "8", 8.0])
def test_other_bits_are_refused(kv_bits):
    with pytest.raises(voxfast.InvalidOptionError, match="kv_bits must be 8 or None; got"):
        voxfast.load(kv_bits=kv_bits)
    if kv_bits in (4, 16, 0):
        with pytest.raises(ValueError, match="kv_bits must be 8 or None"):
            SlidingKVCache(3, kv_bits=kv_bits)


# ---- models -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["voxtral", "qwen"])
def model(request, qwen_folder, voxtral_folder):
    folder = voxtral_folder if request.param == "voxtral" else qwen_folder
    with voxfast.load(folder, dtype=mx.bfloat16, kv_bits=8) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(eval_items: list[EvalItem]) -> list[EvalItem]:
    return [eval_items[number] for number in (30, 1, 22)]


def words_of(model: voxfast.Model, audio: np.ndarray, chunk: int) -> list[voxfast.Word]:
    with model.session() as session:
        words = []
        for at in range(0, len(audio), chunk):
            words += session.feed(audio[at : at + chunk])
        return words + session.finish()


def test_any_split_gives_the_same_words(model, clips):
    audio = clips[0].audio
    block = 1280 if model.delays_ms else 8000  # Qwen3-ASR takes blocks of what it is given
    whole = words_of(model, audio, block)
    assert "".join(word.text for word in whole).strip() == clips[0].transcript
    for chunk in (997, 16000) if model.delays_ms else (4000, 2000):
        assert words_of(model, audio, chunk) == whole


def test_sessions_together_write_the_words_of_each_alone(model, clips):
    alone = [words_of(model, clip.audio, 1777) for clip in clips]
    sessions = [model.session() for _ in clips]
    words = [[] for _ in clips]
    for at in range(0, max(len(clip.audio) for clip in clips), 1777):
        for session, clip in zip(sessions, clips, strict=True):
            session.insert(clip.audio[at : at + 1777])
        for session, found in zip(sessions, words, strict=True):
            found += session.process()
    for session, found in zip(sessions, words, strict=True):
        found += session.finish()
    assert words == alone


def test_composed_ops_write_words_too(model, clips):
    with use_native(False):
        words = words_of(model, clips[0].audio, 1280 if model.delays_ms else 8000)
    assert "".join(word.text for word in words).strip() == clips[0].transcript


def test_states_are_in_8_bits(model):
    network = model._loaded._model
    states = [network.decoder_state()] if not model.delays_ms else [
        network.encoder_state(4), network.decoder_state(6, 4),
    ]  # fmt: skip
    assert all(cache.kv_bits == 8 for state in states for cache in state.caches)
