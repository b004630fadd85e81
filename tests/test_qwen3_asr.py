"""Qwen3-ASR against mlx_qwen3_asr, which computes offline and independently."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_qwen3_asr.audio import compute_features
from mlx_qwen3_asr.load_models import load_model
from mlx_qwen3_asr.tokenizer import Tokenizer

from voxfast.models.qwen3_asr.audio import AudioBuffer, ReflectedLogMel
from voxfast.models.qwen3_asr.network import DecoderRows, Qwen3ASR, TowerRows
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.weights import load_qwen3_asr

WINDOW_FRAMES = 800


@pytest.fixture(scope="module")
def model(qwen_folder: Path) -> Qwen3ASR:
    return load_qwen3_asr(qwen_folder, mx.float32)


@pytest.fixture(scope="module")
def reference(qwen_folder: Path) -> Any:
    return load_model(str(qwen_folder), dtype=mx.float32)[0]


@pytest.fixture(scope="module")
def tokenizer(qwen_folder: Path, model: Qwen3ASR) -> Qwen3ASRTokenizer:
    return Qwen3ASRTokenizer(qwen_folder, model.args.text.vocab_size)


@pytest.fixture(scope="module")
def speech(eval_items: list[EvalItem]) -> np.ndarray:
    """12.5 s."""
    return next(item for item in eval_items if item.name == "eval_37").audio


def offline(reference: Any, samples: np.ndarray) -> np.ndarray:
    features, lengths = compute_features(samples)
    return np.array(reference.audio_tower(features, lengths)[0][0])


def close(found: mx.array | np.ndarray, truth: np.ndarray) -> bool:
    return np.abs(np.array(found) - truth).max() <= 1e-4 * np.abs(truth).max()


# ---- features -----------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(201, 4000), st.lists(st.integers(0, 1500), max_size=8))
def test_any_split_gives_the_reflected_log_mel(length: int, sizes: list[int]) -> None:
    samples = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    stream, at, frames = ReflectedLogMel(128), 0, []
    for size in [*sizes, length]:
        frames.append(stream.step(samples[at : at + size]))
        at += size
    frames.append(stream.last())
    raw = np.concatenate(frames)
    assert len(raw) == length // 160
    if length >= 320:  # for less the library has no features
        truth = np.array(compute_features(samples)[0][0].T)
        found = (np.maximum(raw, raw.max() - 8) + 4) / 4
        assert np.abs(found - truth).max() < 2e-4  # composed of float32 there


def test_less_audio_than_can_be_reflected_has_no_frame() -> None:
    stream = ReflectedLogMel(128)
    assert stream.step(np.zeros(200, np.float32)).shape == (0, 128)
    assert stream.last().shape == (0, 128)
    assert stream.step(np.zeros(1, np.float32)).shape == (1, 128)


# ---- audio tower --------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.03, 0.5, 0.99, 1.0, 1.01, 7.3, 8.0, 8.01, 11.5])
def test_the_tower_gives_what_the_reference_gives(
    model: Qwen3ASR, reference: Any, speech: np.ndarray, seconds: float
) -> None:
    samples = speech[-int(16000 * seconds) :]
    mel = compute_features(samples)[0][0].T
    parts = model.encode(
        [
            TowerRows(mel[i : i + WINDOW_FRAMES], model.window_state(), alone=i == 0)
            for i in range(0, len(mel), WINDOW_FRAMES)
        ]
    )
    assert close(mx.concatenate(parts), offline(reference, samples))


@pytest.mark.parametrize("seconds", [0.03, 0.7, 1.0, 3.21, 8.0, 11.8])
def test_a_buffer_ended_at_once_is_offline(
    model: Qwen3ASR, reference: Any, speech: np.ndarray, seconds: float
) -> None:
    samples = speech[-int(16000 * seconds) :]
    buffer = AudioBuffer(model)
    buffer.push(samples)
    audio = run_alone(buffer.encode(end=True))
    assert audio is not None
    assert audio.n_same == 0
    assert close(audio.embeddings, offline(reference, samples))


def test_settled_chunks_are_encoded_once_and_stay(model: Qwen3ASR, speech: np.ndarray) -> None:
    buffer, before = AudioBuffer(model, max_rise=99), np.zeros((0, 128))
    for i in range(0, len(speech) - 8000, 8000):
        buffer.push(speech[i : i + 8000])
        audio = run_alone(buffer.encode())
        assert audio is not None
        found = np.array(audio.embeddings)
        whole, rest = divmod(buffer.n_frames, 100)
        assert len(found) == 13 * whole + -(-rest // 8)
        np.testing.assert_array_equal(found[: audio.n_same], before[: audio.n_same])
        assert audio.n_same == 13 * (len(before) // 13)
        before = found
    assert buffer.n_encoded <= 1.6 * buffer.n_frames


def test_what_has_settled_is_near_offline(
    model: Qwen3ASR, reference: Any, speech: np.ndarray
) -> None:
    """Settled chunks do not see what follows them: near, not equal."""
    buffer = AudioBuffer(model)
    for i in range(0, len(speech), 8000):
        buffer.push(speech[i : i + 8000])
        run_alone(buffer.encode())
    audio = run_alone(buffer.encode(end=True))
    assert audio is not None
    found, truth = np.array(audio.embeddings), offline(reference, speech)
    cosine = (found * truth).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(truth, axis=1)
    assert cosine.min() > 0.5
    assert cosine.mean() > 0.97


def test_a_louder_sound_encodes_settled_chunks_again(model: Qwen3ASR, speech: np.ndarray) -> None:
    quiet = 1e-3 * speech[:32000]
    rise = 2 * np.log10(np.abs(speech).max() / np.abs(quiet).max())
    for max_rise, again in ((rise + 2, False), (rise - 2, True)):
        buffer = AudioBuffer(model, max_rise=max_rise)
        buffer.push(quiet)
        run_alone(buffer.encode())
        buffer.push(speech[32000:48000])
        audio = run_alone(buffer.encode())
        assert audio is not None
        assert (audio.n_same == 0) is again


def test_dropped_chunks_leave_the_others_as_they_were(model: Qwen3ASR, speech: np.ndarray) -> None:
    buffer = AudioBuffer(model)
    buffer.push(speech[:150000])
    before = run_alone(buffer.encode())
    buffer.drop(3)
    after = run_alone(buffer.encode())
    assert before is not None
    assert after is not None
    assert after.n_same == 0
    assert buffer.dropped_seconds == 3
    n_settled = 13 * (150000 // 16000)
    np.testing.assert_array_equal(
        np.array(before.embeddings)[39:n_settled], np.array(after.embeddings)[: n_settled - 39]
    )
    buffer.drop(0)
    again = run_alone(buffer.encode())
    assert again is not None
    assert again.n_same == n_settled - 39
    with pytest.raises(ValueError, match="10 chunks to drop, 6 settled"):
        buffer.drop(10)


# ---- decoder ------------------------------------------------------------------------


def test_the_decoder_gives_the_logits_of_the_reference(
    model: Qwen3ASR,
    reference: Any,
    tokenizer: Qwen3ASRTokenizer,
    speech: np.ndarray,
    qwen_folder: Path,
) -> None:
    """In pieces and with keys kept, against one prefill."""
    audio = mx.array(offline(reference, speech[:40000]))
    head, tail = tokenizer.prompt("names")
    text = [*tail, *tokenizer.language_prefix("English"), *tokenizer.encode("one two seventeen")]
    prompt = [*head, *[151676] * len(audio), *text]
    positions = mx.stack([mx.arange(len(prompt))[None]] * 3, axis=1)
    truth = np.array(
        reference.prefill(mx.array([prompt]), audio[None], positions, reference.create_cache())
    )[0, 0]
    state = model.decoder_state()
    x = mx.concatenate([model.embed(head), audio, model.embed(text)])
    assert close(model.decode([DecoderRows([x], state)])[0][0], truth)
    for kept in (len(prompt) - 1, len(head) + 5, 3):
        state.keep(kept)
        assert state.offset == kept
        assert close(model.decode([DecoderRows([x[kept:]], state)])[0][0], truth)
    library = Tokenizer(str(qwen_folder))
    assert tokenizer.prompt("names") == (
        library.build_prompt_tokens(1, context="names")[: len(head)],
        tail,
    )


def test_queries_are_rotated_as_the_keys_are(model: Qwen3ASR) -> None:
    """A query and its own key differ by nothing but the projection: compare with the rings."""
    x = mx.random.normal((7, 128), key=mx.random.key(0))
    state = model.decoder_state()
    _, (queries,) = model.decode([DecoderRows([x], state, [2, 0])])
    assert [q.shape for q in queries] == [(1, 4, 1, 64)] * 2
    fresh = model.decoder_state()
    _, (first,) = model.decode([DecoderRows([x[:3]], fresh, [0])])
    _, (second,) = model.decode([DecoderRows([x[3:]], fresh, [0])])
    np.testing.assert_allclose(np.array(second[0]), np.array(queries[1]), atol=1e-5)
    assert np.abs(np.array(first[0]) - np.array(queries[1])).max() > 0.01
    angles = 6 * 1e6 ** (-np.arange(0, 64, 2) / 64)
    plain = model.decoder_state()
    # Position 0 is not rotated at all.
    _, (unrotated,) = model.decode([DecoderRows([x[6:]], plain, [0])])
    q = np.array(unrotated[0])
    rotated = np.concatenate(
        [
            q[..., :32] * np.cos(angles) - q[..., 32:] * np.sin(angles),
            q[..., 32:] * np.cos(angles) + q[..., :32] * np.sin(angles),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(rotated, np.array(queries[1]), atol=1e-5)
