"""Tests of the recipe of qwen3-asr-numbers, run by hand: ``pytest tools/train``."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file

from ..evalset import read_eval_set
from ..grammar import VOCABULARY
from ..mel import HOP, N_MELS
from ..pool import Pool
from ..scoring import score
from ..speech import SAMPLE_RATE, Phrase, Word
from ..trainer import Trainer
from . import batches
from .batches import IGNORED, NO_WORD, Batch, Batches, build, token_times
from .checkpoint import WEIGHTS, load_checkpoint, save_checkpoint
from .config import ModelConfig, QwenRecipe, Shape
from .features import log_mel
from .model import Qwen3ASR, audio_tokens, quantise
from .task import QwenTask, transcribe
from .tokenizer import FILES, Tokenizer, write_tokenizer

DATA = Path(__file__).parents[3] / "tests" / "data"
SHIPPED = DATA / "qwen3-asr-numbers"
TINY = ModelConfig(
    audio_dim=16, audio_layers=2, audio_heads=2, audio_ffn=24, channels=4, window=26, dim=16,
    layers=3, heads=4, kv_heads=2, head_dim=8, ffn=24, vocab_size=151936,
)  # fmt: skip
RECIPE = QwenRecipe(
    steps=40, compile=False, warm_up=2, model=TINY, dev_clips=2, dev_seconds=2,
    shapes=(Shape(3, 3, 160, 60), Shape(2, 4, 160, 60), Shape(1, 6, 200, 80)),
)  # fmt: skip


class TonePool:
    """Stands in for a pool: every phrase is one word, a tone of 0.3 s between silences."""

    def choose(self, rng: Generator, one_voice: bool) -> NDArray[np.int64]:
        return np.arange(len(VOCABULARY))

    def __getitem__(self, number: int) -> Phrase:
        audio = np.zeros(SAMPLE_RATE, np.float32)
        audio[3200:8000] = 0.5 * np.sin(np.arange(4800) * (0.2 + 0.01 * number))
        return Phrase(audio, [Word(VOCABULARY[number], 0.2, 0.5)], "tone")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer(folder)


@pytest.fixture
def tiny(tokenizer: Tokenizer) -> Qwen3ASR:
    torch.manual_seed(0)
    return Qwen3ASR(TINY, len(tokenizer.real)).eval()


# Tokenizer


def test_tokenizer_is_the_shipped_one(tmp_path: Path) -> None:
    assert write_tokenizer(tmp_path) == 463
    for name in FILES:
        assert (tmp_path / name).read_text() == (SHIPPED / name).read_text()


def test_tokenizer_round_trip(tokenizer: Tokenizer) -> None:
    for text in ("twenty one", " hundred", "Ünïcode 東京\n\n  12  %", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for word in VOCABULARY:
        assert tokenizer.decode(tokenizer.first[word]) == word
        assert tokenizer.decode(tokenizer.rest[word]) == f" {word}"


def test_prompt_is_the_chat_template(tokenizer: Tokenizer) -> None:
    prompt = [tokenizer.real[number] for number in tokenizer.prompt(2, "one two")]
    start, end = 151644, 151645
    assert [number for number in prompt if number > 1000] == [
        start, end, start, 151669, 151676, 151676, 151670, end, start, 151704,
    ]  # fmt: skip
    text = tokenizer.decode(tokenizer.prompt(2, "one two"))
    assert text == "system\none two\nuser\n\nassistant\nlanguage English"
    assert tokenizer.prompt(2, forced=False) == tokenizer.prompt(2)[: -len(tokenizer.language)]


# Features and targets


def test_log_mel_is_the_definition() -> None:
    audio = 0.1 * np.random.default_rng(0).standard_normal(1600)
    mel = log_mel(torch.from_numpy(audio.astype(np.float32)))
    padded = np.pad(audio, 200, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    from ..mel import mel_filterbank

    power = [np.abs(np.fft.rfft(padded[160 * t : 160 * t + 400] * hann)) ** 2 for t in range(10)]
    expected = np.log10(np.maximum(np.array(power) @ mel_filterbank().double().numpy(), 1e-10))
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    np.testing.assert_allclose(mel.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("frames", "tokens"), [(1, 1), (8, 1), (9, 2), (99, 13), (100, 13), (101, 14), (250, 33)]
)
def test_audio_tokens(frames: int, tokens: int) -> None:
    assert audio_tokens(frames) == tokens
    times = token_times(tokens)
    assert times[-1] < (frames + 8) * HOP / SAMPLE_RATE


def test_sequence_and_its_words(tokenizer: Tokenizer) -> None:
    said = [Word("seven", 0, 1), Word("minus", 1, 2), Word("one", 2, 3)]
    tokens = [*tokenizer.first["seven"], *tokenizer.rest["minus"], *tokenizer.rest["one"]]
    ids, start, words = build(tokenizer, said, 5)
    assert ids == [*tokenizer.prompt(5), *tokens, tokenizer.end]
    assert (start, len(words), words[-1]) == (len(tokenizer.prompt(5)), len(ids), -1)
    assert sorted(set(words)) == [-1, 0, 1, 2]
    free, free_start, _ = build(tokenizer, said, 5, forced=False)
    assert free == ids
    assert free_start == start - len(tokenizer.language)
    _, later, _ = build(tokenizer, said, 5, committed=2)
    assert ids[later:] == [*tokenizer.rest["one"], tokenizer.end]


def test_batches_line_up(tokenizer: Tokenizer) -> None:
    batches = Batches(cast(Pool, TonePool()), tokenizer, RECIPE)
    batch = batches[0]
    again = batches[0]
    assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))
    assert batch.mel.shape == (3, 300, N_MELS)
    assert batch.ids.shape == (3, 160)
    found = 0
    for row in range(3):
        count = int(batch.counts[row])
        first = int((batch.places[row] == 0).nonzero()[0])
        assert (batch.ids[row, first : first + count] == tokenizer.audio).all()
        asked = batch.targets[row] != IGNORED
        assert asked.any()
        following = batch.ids[row, batch.queries[row, asked] + 1]
        assert torch.equal(following, batch.targets[row, asked])
        assert int(batch.targets[row, asked][-1]) == tokenizer.end
        assert set(batch.labels[row, count:].tolist()) <= {IGNORED}
        for span in batch.spans[row][batch.spans[row].any(-1)]:
            inside = span.nonzero()[:, 0] - first
            assert (inside >= 0).all()
            assert (inside < count).all()
            assert 1 <= len(inside) <= 2  # two where a second begins
            found += 1
    assert found > 0
    assert (batch.labels == NO_WORD).any()


def test_shapes_by_progress(tokenizer: Tokenizer) -> None:
    batches = Batches(cast(Pool, TonePool()), tokenizer, RECIPE)
    short, usual, long = RECIPE.shapes
    kinds = [batches.shape(number) for number in range(40)]
    assert kinds[:9] == [short] * 9
    assert kinds[9:20] == [usual] * 10 + [long]
    assert kinds[20:24] == [usual] * 3 + [long]


# Model


def test_padding_changes_nothing(tiny: Qwen3ASR) -> None:
    mel = torch.randn(1, 300, N_MELS)
    mel[:, 170:] = 0
    count = torch.tensor([audio_tokens(170)])
    with torch.no_grad():
        whole, _ = tiny.audio_tower(mel, count)
        short, _ = tiny.audio_tower(mel[:, :200], count)
    torch.testing.assert_close(whole[:, : int(count)], short[:, : int(count)])


def test_windows_are_apart_and_the_decoder_is_causal(tiny: Qwen3ASR) -> None:
    mel = torch.randn(1, 400, N_MELS)
    count = torch.tensor([52])
    with torch.no_grad():
        before, _ = tiny.audio_tower(mel, count)
        mel[:, 200:] += 1  # the second window of 26 tokens
        after, _ = tiny.audio_tower(mel, count)
        assert torch.equal(before[:, :26], after[:, :26])
        assert not torch.isclose(before[:, 26:], after[:, 26:]).any(-1).all()
        x = torch.randn(1, 12, TINY.dim)
        states, attention = tiny.decode(x)
        x[:, 8:] += 1
        changed, _ = tiny.decode(x)
    torch.testing.assert_close(states[:, :8], changed[:, :8])
    assert not torch.isclose(states[:, 8:], changed[:, 8:]).all()
    assert all((weights.triu(1) == 0).all() for weights in attention)


def test_zero_rows_are_one_class(tiny: Qwen3ASR) -> None:
    logits = tiny.logits(torch.randn(2, TINY.dim))
    whole = torch.cat((logits[:, :-1], torch.zeros(2, TINY.vocab_size - tiny.rows)), -1)
    torch.testing.assert_close(
        logits.log_softmax(-1)[:, : tiny.rows],
        whole.log_softmax(-1)[:, : tiny.rows],
        rtol=1e-4,
        atol=1e-3,
    )


def test_quantised_rows_have_four_levels(tiny: Qwen3ASR) -> None:
    embedding = tiny.embedding().detach()
    for row in embedding[:20]:
        assert len(row.unique()) <= 4
    codes, scale = quantise(tiny.model.embed_tokens.weight.detach())
    torch.testing.assert_close(embedding, (codes - 1.5) * scale)
    assert torch.equal(scale, scale.half().float())


# Checkpoint


def test_checkpoint_round_trip(tmp_path: Path, tiny: Qwen3ASR, tokenizer: Tokenizer) -> None:
    save_checkpoint(tmp_path, tiny, tokenizer)
    loaded = load_checkpoint(tmp_path, tokenizer, TINY)
    torch.testing.assert_close(
        loaded.model.embed_tokens.weight, tiny.embedding(), rtol=0, atol=1e-4
    )
    name = "audio_tower.proj2.weight"
    torch.testing.assert_close(
        loaded.get_parameter(name), tiny.get_parameter(name), rtol=1e-3, atol=1e-4
    )


def test_checkpoint_has_the_shipped_layout(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_checkpoint(tmp_path, Qwen3ASR(ModelConfig(), len(tokenizer.real)), tokenizer)
    ours, theirs = load_file(tmp_path / WEIGHTS), load_file(SHIPPED / WEIGHTS)
    assert {name: (t.shape, t.dtype) for name, t in ours.items()} == {
        name: (t.shape, t.dtype) for name, t in theirs.items()
    }
    documents = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    heads = documents.pop("alignment_heads.json")
    for name, document in documents.items():
        assert document == json.loads((SHIPPED / name).read_text()), name
    assert len(documents) == 4
    measured = json.loads((SHIPPED / "alignment_heads.json").read_text())
    assert {name: measured[name] for name in ("num_layers", "num_heads")} == {
        name: heads[name] for name in ("num_layers", "num_heads")
    }
    assert heads["alignment_heads_compact"][0] == measured["alignment_heads_compact"][0]


def test_shipped_weights_transcribe() -> None:
    """The model is the one of the shipped checkpoint, features and prompt included."""
    tokenizer = Tokenizer(SHIPPED)
    model = load_checkpoint(SHIPPED, tokenizer, ModelConfig())
    clips = list(read_eval_set(DATA / "eval"))[:12]
    heard = [transcribe(model, tokenizer, [clip.audio])[0] for clip in clips]
    result = score(zip([clip.words for clip in clips], heard, strict=True))
    assert result.words > 20
    assert result.word_error_rate < 0.05
    assert result.mean_error is None


# Training


def test_training_learns_a_batch_and_resumes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    recipe = replace(RECIPE, peak_rate=1e-2, steps=400)
    batch = Batches(cast(Pool, TonePool()), tokenizer, recipe)[1]
    trainer = Trainer(tmp_path, recipe, QwenTask(recipe, tokenizer, {}))
    losses = [trainer.learn(batch).parts for _ in range(25)]
    assert set(losses[0]) == {"outputs", "auxiliary", "guide"}
    assert all(math.isfinite(loss.item()) for parts in losses for loss in parts.values())
    assert losses[-1]["outputs"] < 0.7 * losses[0]["outputs"]
    trainer.save()
    resumed = Trainer(tmp_path, recipe, QwenTask(recipe, tokenizer, {}))
    assert torch.equal(resumed.learn(batch).total, trainer.learn(batch).total)


def test_everything_is_on_one_device(tokenizer: Tokenizer) -> None:
    """The device "meta" refuses what lies elsewhere, as a GPU would."""
    task = QwenTask(RECIPE, tokenizer, {})
    task.trainee.to("meta")
    drawn = Batches(cast(Pool, TonePool()), tokenizer, RECIPE)[0]
    losses = task.losses(task.trainee, Batch(*(part.to("meta") for part in drawn)), 0.5)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert losses.total.device.type == "meta"


def test_clips_of_different_lengths_are_refused(tiny: Qwen3ASR, tokenizer: Tokenizer) -> None:
    audios: Sequence[NDArray[np.float32]] = [np.zeros(n, np.float32) for n in (16000, 17000)]
    with pytest.raises(ValueError, match="one length"):
        transcribe(tiny, tokenizer, audios)


def test_a_cut_may_end_within_the_first_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WHOLE", 0.0), ("MID_STREAM", 0.0), ("EARLY", 1.0)):
        monkeypatch.setattr(batches, name, value)
    words = [Word("one", 1.0, 1.4), Word("two", 1.5, 1.9), Word("red", 3.0, 3.4)]
    rng = np.random.default_rng(5)
    cut = [batches._cut(np.zeros(5 * SAMPLE_RATE, np.float32), words, rng) for _ in range(200)]
    lengths = [len(audio) / SAMPLE_RATE for audio, _ in cut]
    assert min(lengths) >= 1.0
    assert 2.0 < max(lengths) <= 1.9 + batches.PAUSE
    assert {len(said) for _, said in cut} == {0, 1, 2}
