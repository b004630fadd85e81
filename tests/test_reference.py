"""The NumPy reference itself, anchored to what others computed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation import EVAL_FOLDER, EvalItem
from mistral_common.audio import mel_filter_bank
from mistral_common.tokens.tokenizers.audio import AudioEncoder, SpecialAudioIDs
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from numpy.typing import NDArray
from reference.voxtral_numpy import (
    Array,
    Voxtral,
    causal_conv,
    gelu,
    mel_filterbank,
    read_safetensors,
    rotate,
    sliding_attention,
)

Tokens = dict[int, dict[str, list[int]]]


@pytest.fixture(scope="module")
def voxtral(voxtral_folder: Path) -> Voxtral:
    return Voxtral(voxtral_folder)


@pytest.fixture(scope="module")
def tekkenizer(voxtral_folder: Path) -> Tekkenizer:
    return Tekkenizer.from_file(voxtral_folder / "tekken.json")


@pytest.fixture(scope="module")
def clip_31(eval_items: list[EvalItem]) -> EvalItem:
    """The clip of which intermediate results are stored, at a delay of 6 positions."""
    return next(item for item in eval_items if item.name == "eval_31")


@pytest.fixture(scope="module")
def embeddings_31(voxtral: Voxtral, clip_31: EvalItem) -> Array:
    return voxtral.embed_audio(clip_31.audio, 6)


@pytest.fixture(scope="module")
def stored() -> dict[str, NDArray[np.float32]]:
    with np.load(EVAL_FOLDER / "voxtral_eval_31.npz") as arrays:
        return dict(arrays)


# --- The whole model ------------------------------------------------------------------------


@pytest.mark.parametrize("n_delay", [3, 6, 12])
def test_stored_tokens_are_the_greedy_ones(
    voxtral: Voxtral, eval_items: list[EvalItem], voxtral_tokens: Tokens, n_delay: int
) -> None:
    for item in (eval_items[6], eval_items[21]):
        tokens = voxtral_tokens[n_delay][item.name]
        assert voxtral.verify_greedy(item.audio, n_delay, tokens) == []


def test_greedy_finds_the_stored_tokens(
    voxtral: Voxtral, clip_31: EvalItem, voxtral_tokens: Tokens
) -> None:
    assert voxtral.greedy(clip_31.audio, 6) == voxtral_tokens[6]["eval_31"]


def test_mel(voxtral: Voxtral, clip_31: EvalItem, stored: dict[str, NDArray[np.float32]]) -> None:
    mel = voxtral.log_mel(voxtral.pad_audio(clip_31.audio, 6))
    np.testing.assert_allclose(mel, stored["mel"], atol=1e-5)


def test_audio_embeddings(embeddings_31: Array, stored: dict[str, NDArray[np.float32]]) -> None:
    assert embeddings_31.shape == stored["audio_embeddings"].shape
    error = np.linalg.norm(embeddings_31 - stored["audio_embeddings"])
    assert error / np.linalg.norm(embeddings_31) < 2e-6


def test_encoder_window_matters(
    voxtral: Voxtral,
    embeddings_31: Array,
    stored: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window = voxtral.encoder.sliding_window
    for wrong in (window - 1, window + 1):
        monkeypatch.setattr(voxtral, "encoder", replace(voxtral.encoder, sliding_window=wrong))
        embeddings = voxtral.encode(stored["mel"].astype(np.float64))
        assert not np.allclose(embeddings, embeddings_31, atol=1e-2)


def test_verify_greedy_reports_place_and_margin(
    voxtral: Voxtral, eval_items: list[EvalItem], voxtral_tokens: Tokens
) -> None:
    item = eval_items[6]
    tokens = list(voxtral_tokens[6][item.name])
    logits = voxtral.decode_logits(voxtral.embed_audio(item.audio, 6), tokens, 6)
    tokens[-1] = voxtral.bos
    [(k, margin)] = voxtral.verify_greedy(item.audio, 6, tokens)
    assert k == len(tokens) - 1
    assert margin == pytest.approx(logits[-1].max() - logits[-1, voxtral.bos])
    with pytest.raises(ValueError, match=f"gives {len(tokens)} tokens, not {len(tokens) - 1}"):
        voxtral.verify_greedy(item.audio, 6, tokens[:-1])


def test_close_calls(voxtral: Voxtral, embeddings_31: Array, voxtral_tokens: Tokens) -> None:
    logits = voxtral.decode_logits(embeddings_31, voxtral_tokens[6]["eval_31"], 6)
    best = np.sort(logits, axis=-1)
    margins = best[:, -1] - best[:, -2]
    stored = json.loads((EVAL_FOLDER / "voxtral_close_calls.json").read_text())["close"]
    close = stored.get("eval_31.flac", [])
    assert np.flatnonzero(margins < 0.05).tolist() == [k for k, _ in close]
    np.testing.assert_allclose([margins[k] for k, _ in close], [m for _, m in close], atol=1e-3)


def test_words_and_silence(
    voxtral: Voxtral, eval_items: list[EvalItem], voxtral_tokens: Tokens
) -> None:
    item = eval_items[34]
    words = voxtral.words(voxtral_tokens[6][item.name])
    assert "".join(text for text, _ in words).strip() == item.transcript
    ends = np.array([(k - 0.5) * 0.08 for _, k in words])
    assert np.abs(ends - [word.end for word in item.words]).max() < 0.25
    assert voxtral.words(voxtral.greedy(np.zeros(16000), 6)) == []


# --- Against mistral_common -----------------------------------------------------------------


def test_filterbank_is_the_published_one() -> None:
    expected = mel_filter_bank(201, 128, 0.0, 8000.0, 16000)
    np.testing.assert_allclose(mel_filterbank(128, 400, 16000), expected.T, atol=1e-15)


@pytest.mark.parametrize("n_delay", [1, 6, 15])
@pytest.mark.parametrize("n_samples", [0, 1, 1280, 20001])
def test_padding_and_prompt_are_the_published_ones(
    voxtral: Voxtral, tekkenizer: Tekkenizer, n_delay: int, n_samples: int
) -> None:
    config = tekkenizer.audio
    assert config is not None
    ids = SpecialAudioIDs(None, None, voxtral.streaming_pad, None, None)
    encoder = AudioEncoder(config, ids)
    audio = np.arange(1.0, n_samples + 1)
    expected = encoder.pad(audio, 16000, 80 * n_delay)
    np.testing.assert_array_equal(voxtral.pad_audio(audio, n_delay), expected)
    streaming_tokens = encoder.encode_streaming_tokens(80 * n_delay)
    assert voxtral.prompt(n_delay) == [tekkenizer.bos_id, *streaming_tokens]


def test_words_are_tekken_text(
    voxtral: Voxtral, tekkenizer: Tekkenizer, voxtral_tokens: Tokens
) -> None:
    tokens = voxtral_tokens[6]["eval_long_180s"]
    text = tekkenizer.decode([token for token in tokens if token >= voxtral.n_special])
    assert "".join(word for word, _ in voxtral.words(tokens)) == text


# --- Parts against their definitions --------------------------------------------------------


def test_read_safetensors(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]},
        "b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [6, 14]},
        "c": {"dtype": "F16", "shape": [], "data_offsets": [14, 16]},
    }
    text = json.dumps(header).encode()
    data = bytes.fromhex("803f 20c0 ab3e".replace(" ", ""))  # 1, -2.5, 0.333984375
    data += np.array([0.1, -7], "<f4").tobytes() + np.array(0.5, "<f2").tobytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    weights = read_safetensors(path)
    assert {name: w.tolist() for name, w in weights.items()} == {
        "a": [1.0, -2.5, 0.333984375],
        "b": [[float(np.float32(0.1)), -7.0]],
        "c": 0.5,
    }
    assert all(w.dtype == np.float64 for w in weights.values())


@pytest.mark.parametrize("window", [1, 7, 290, 1000])
def test_sliding_attention_one_position_at_a_time(window: int) -> None:
    rng = np.random.default_rng(0)
    length, n_heads, n_kv_heads, head_dim = 300, 4, 2, 6
    q = rng.standard_normal((length, n_heads, head_dim))
    k, v = rng.standard_normal((2, length, n_kv_heads, head_dim))
    out = sliding_attention(q, k, v, window)
    for p in (0, 1, 6, 7, 255, 256, 289, 290, 299):
        seen = slice(max(0, p - window + 1), p + 1)
        for head in range(n_heads):
            scores = k[seen, head // 2] @ q[p, head] / math.sqrt(head_dim)
            weights = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(out[p, head], weights @ v[seen, head // 2], atol=1e-12)


def test_rotate_is_a_complex_product() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2, 4))
    turned = rotate(x, theta=100.0)
    for position in range(5):
        for pair, frequency in enumerate((1.0, 0.1)):
            z = x[position, :, 2 * pair] + 1j * x[position, :, 2 * pair + 1]
            z *= np.exp(1j * position * frequency)
            got = turned[position, :, 2 * pair] + 1j * turned[position, :, 2 * pair + 1]
            np.testing.assert_allclose(got, z, atol=1e-12)


def test_causal_conv_by_hand() -> None:
    x = np.array([[1.0], [10.0], [100.0], [1000.0]])
    weight = np.array([[[1.0, 2.0, 3.0]]])
    bias = np.array([0.5])
    same = causal_conv(x, weight, bias, stride=1)
    assert same[:, 0].tolist() == [3.5, 32.5, 321.5, 3210.5]
    half = causal_conv(x, weight, bias, stride=2)
    assert half[:, 0].tolist() == [32.5, 3210.5]


def test_gelu_is_exact() -> None:
    # Φ(1) and Φ(-2) to 15 digits (Abramowitz and Stegun, table 26.1).
    expected = np.array([[0.841344746068543, -2 * 0.022750131948179]])
    np.testing.assert_allclose(gelu(np.array([[1.0, -2.0]])), expected, rtol=1e-13)
