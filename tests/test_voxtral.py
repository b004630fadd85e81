"""The model against the float64 reference, and each streaming stage against its batch twin."""

from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem
from reference import voxtral_numpy

from voxfast.models.voxtral.network import CausalConv, DecoderRows, DecoderState, Voxtral
from voxfast.models.voxtral.weights import load_voxtral

DELAY = 6


@pytest.fixture(scope="module")
def model(voxtral_folder: Path) -> Voxtral:
    return load_voxtral(voxtral_folder, mx.float32)


@pytest.fixture(scope="module")
def reference(voxtral_folder: Path) -> voxtral_numpy.Voxtral:
    return voxtral_numpy.Voxtral(voxtral_folder)


@pytest.fixture(scope="module")
def clip(eval_items: list[EvalItem]) -> EvalItem:
    return next(item for item in eval_items if item.name == "eval_31")


@pytest.fixture(scope="module")
def mel(reference: voxtral_numpy.Voxtral, clip: EvalItem) -> np.ndarray:
    return reference.log_mel(reference.pad_audio(clip.audio, DELAY))


def relative(found: mx.array | np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(np.array(found) - truth).max() / np.abs(truth).max())


def in_pieces(sizes: Iterable[int], total: int) -> list[slice]:
    pieces, at, given = [], 0, list(sizes)
    while at < total:
        size = given[len(pieces) % len(given)]
        pieces.append(slice(at, min(at + size, total)))
        at += size
    return pieces


def encode(model: Voxtral, mel: np.ndarray, sizes: Iterable[int], start: int = 0) -> np.ndarray:
    pieces = in_pieces(sizes, len(mel))
    state = model.encoder_state(max(piece.stop - piece.start for piece in pieces) // 2 + 1, start)
    found = []
    for piece in pieces:
        (embeddings,) = model.encode([mx.array(mel[None, piece].astype(np.float32))], [[state]])
        mx.eval(state.arrays())
        if embeddings is not None:
            found.append(np.array(embeddings))
    return np.concatenate(found)


def test_encoder_matches_the_reference_offline(
    model: Voxtral, reference: voxtral_numpy.Voxtral, mel: np.ndarray
) -> None:
    assert relative(encode(model, mel, [len(mel)]), reference.encode(mel)) < 1e-5


@pytest.mark.parametrize("sizes", [[8], [1], [3], [7, 2, 31], [1, 255, 5], [101]])
def test_encoder_streamed_equals_offline(
    model: Voxtral, reference: voxtral_numpy.Voxtral, mel: np.ndarray, sizes: list[int]
) -> None:
    """Longer than the window of 100 frames, odd chunks too."""
    short = mel[:480]
    found = encode(model, short, sizes)
    assert found.shape == (60, 256)
    assert relative(found, reference.encode(short)) < 1e-5


def test_streams_encoded_together_have_the_embeddings_of_each(model: Voxtral) -> None:
    """Bit for bit, whatever the phases of the streams and the numbers of their frames."""
    rng = np.random.default_rng(3)
    mels = rng.normal(size=(4, 120, model.args.audio.n_mels)).astype(np.float32)
    rounds = [(8, 8, 8, 8), (8, 8, 3, 8), (1, 8, 8, 8), (16, 1, 1, 2), (8, 8, 1, 16), (8, 8, 8, 8)]
    together, alone = ([model.encoder_state(64) for _ in mels] for _ in range(2))
    at = [0] * len(mels)
    for lengths in rounds:
        parts = [mx.array(mel[a : a + n]) for mel, a, n in zip(mels, at, lengths, strict=True)]
        batches: dict[tuple[int, ...], list[int]] = {}
        for i, part in enumerate(parts):
            batches.setdefault((len(part), *together[i].phase), []).append(i)
        order = [i for batch in batches.values() for i in batch]
        found = model.encode(
            [mx.stack([parts[i] for i in batch]) for batch in batches.values()],
            [[together[i] for i in batch] for batch in batches.values()],
        )
        expected = [model.encode([parts[i][None]], [[alone[i]]])[0] for i in order]
        assert list(map(shaped, found)) == list(map(shaped, expected))
        at = [a + n for a, n in zip(at, lengths, strict=True)]
    assert len({state.phase for state in together}) > 1


def shaped(embeddings: mx.array | None) -> tuple[tuple[int, ...], bytes] | None:
    """What compares bits."""
    return None if embeddings is None else (embeddings.shape, np.array(embeddings).tobytes())


def test_the_encoder_window_is_applied(
    model: Voxtral, reference: voxtral_numpy.Voxtral, mel: np.ndarray
) -> None:
    """What four layers of a 100-frame window cannot reach must not matter, and only that."""
    changed = mel.copy()
    changed[:8] += 1.0
    before, after = encode(model, mel, [8]), encode(model, changed, [8])
    reach = 4 * 100 // 4 + 2  # positions
    np.testing.assert_array_equal(before[reach:], after[reach:])
    assert np.abs(before[:20] - after[:20]).max() > 1e-3


def decode(
    model: Voxtral, audio: np.ndarray, tokens: list[int], prompt: int, start: int = 0
) -> np.ndarray:
    """Logits of every position behind the prompt, prefilled and then stepped one by one."""
    state = model.decoder_state(DELAY, prompt, start)
    embeddings = mx.array(audio.astype(np.float32))
    found = [run(model, embeddings[:prompt], tokens[:prompt], state)]
    for p in range(prompt, len(tokens)):
        found.append(run(model, embeddings[p : p + 1], tokens[p : p + 1], state))
        mx.eval(found[-1], state.arrays())
    return np.array(mx.concatenate(found))


def run(model: Voxtral, audio: mx.array, tokens: list[int], state: DecoderState) -> mx.array:
    """One pass of one stream: [1, vocab_size] logits."""
    return model.decode([DecoderRows(audio, mx.array(tokens), state)])


def test_decoder_matches_the_reference(
    model: Voxtral,
    reference: voxtral_numpy.Voxtral,
    mel: np.ndarray,
    clip: EvalItem,
    voxtral_tokens: dict[int, dict[str, list[int]]],
) -> None:
    """148 positions: beyond the window of 128, in a prefill and single steps."""
    audio = reference.encode(mel)
    generated = voxtral_tokens[DELAY][clip.name]
    truth = reference.decode_logits(audio, generated, DELAY)
    prompt = reference.prompt(DELAY)
    found = decode(model, audio, prompt + generated[:-1], len(prompt))
    assert found.shape == truth.shape
    assert relative(found, truth) < 1e-5


def test_the_decoder_window_is_applied(model: Voxtral) -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(560, 256)).astype(np.float32)
    tokens = [32] * len(audio)
    changed = audio.copy()
    changed[0] += 1.0
    before, after = (decode(model, x, tokens, 39) for x in (audio, changed))
    reach = 4 * 128 - 38
    np.testing.assert_array_equal(before[reach:], after[reach:])
    assert np.abs(before[:20] - after[:20]).max() > 1e-3


def test_a_stream_that_starts_after_a_month_is_as_exact(
    model: Voxtral, reference: voxtral_numpy.Voxtral, mel: np.ndarray
) -> None:
    """Float32 angles would be off by radians here."""
    month = 30 * 24 * 3600 * 50  # encoder frames
    short = mel[:480]
    assert relative(encode(model, short, [8], month), reference.encode(short)) < 1e-5
    audio = reference.encode(short)
    tokens = [32] * len(audio)
    np.testing.assert_allclose(
        decode(model, audio, tokens, 39, month // 4), decode(model, audio, tokens, 39), atol=1e-4
    )


def test_delays_differ(model: Voxtral) -> None:
    three, six = (model.decoder.delay_scales(n) for n in (3, 6))
    assert float(mx.abs(three[0] - six[0]).max()) > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 2, 4, 1], [17], [64]])
def test_convolution_streamed_equals_padded_batch(stride: int, sizes: list[int]) -> None:
    conv = CausalConv(5, 7, stride)
    conv.weight = mx.random.normal((7, 3, 5), key=mx.random.key(1))
    conv.bias = mx.random.normal((7,), key=mx.random.key(2))
    x = mx.random.normal((1, 64, 5), key=mx.random.key(3))
    weight = np.array(conv.weight, np.float64).transpose(0, 2, 1)
    truth = voxtral_numpy.gelu(
        voxtral_numpy.causal_conv(
            np.array(x[0], np.float64), weight, np.array(conv.bias, np.float64), stride
        )
    )
    tail, found = conv.tail(), []
    for piece in in_pieces(sizes, 64):
        rows, tail = conv.windows(x[:, piece], tail)
        if rows.shape[1]:
            found.append(np.array(conv(rows)[0]))
    np.testing.assert_allclose(np.concatenate(found), truth, atol=1e-5)
