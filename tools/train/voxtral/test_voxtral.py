"""Tests of the recipe, run by hand: ``pytest tools/train``. Nothing here learns to transcribe."""

import ctypes.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from ..__main__ import leave_out
from ..augment import NOTHING
from ..evalset import read_eval_set, write_eval_set
from ..grammar import RARE, RULES, VOCABULARY, WORDS, draw_phrase, draw_rare, expand
from ..mel import N_MELS, mel_filterbank
from ..mixture import NAMES_MIXTURE, POOLS, RARE_MIXTURE
from ..pool import Pool
from ..scoring import align, score
from ..speech import SAMPLE_RATE, Phrase, Word
from ..synthesis import fill
from ..trainer import Trainer, take_mean
from . import batches as batches_module
from .attention import dense_attention, rotary, rotate, sliding_attention
from .batches import IGNORED, NO_WORD, Batch, Batches, auxiliary_labels
from .checkpoint import (
    WEIGHTS,
    config_of,
    load_checkpoint,
    params_of,
    save_checkpoint,
    start_from,
)
from .config import ModelConfig, StackConfig, VoxtralRecipe
from .decode import decode
from .features import log_mel
from .model import VoxtralRealtime
from .names import RECIPE as NAMES_RECIPE
from .rare import RECIPE as RARE_RECIPE
from .stream import (
    BOS,
    FLUSH,
    LEFT_PAD,
    PAD,
    POSITION_SAMPLES,
    WORD,
    expected_outputs,
    output_count,
    pad_audio,
    prompt,
    read_words,
)
from .task import VoxtralTask, name_tokens
from .tokenizer import load_tokenizer, word_tokens, write_tokenizer

needs_espeak = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="espeak-ng is not installed"
)

TINY = ModelConfig(
    encoder=StackConfig(16, 2, 2, 2, 8, 24, window=12, biases=True),
    decoder=StackConfig(24, 2, 4, 2, 8, 32, window=9, delay_rank=4),
)
TOKENS = {word: [1000 + place, 1300] for place, word in enumerate(VOCABULARY)}


class TonePool:
    """Stands in for a pool: every phrase is one word, a tone of 0.3 s between silences."""

    def choose(self, rng: Generator, one_voice: bool) -> NDArray[np.int64]:
        return np.arange(len(VOCABULARY))

    def __getitem__(self, number: int) -> Phrase:
        audio = np.zeros(SAMPLE_RATE, np.float32)
        audio[3200:8000] = 0.5 * np.sin(np.arange(4800) * (0.2 + 0.01 * number))
        return Phrase(audio, [Word(VOCABULARY[number], 0.2, 0.5)], "tone")


def tone_batches(recipe: VoxtralRecipe) -> Batches:
    return Batches(cast(Pool, TonePool()), TOKENS, recipe)


@pytest.fixture
def tiny() -> VoxtralRealtime:
    torch.manual_seed(0)
    return VoxtralRealtime(TINY).eval()


# Grammar and tokenizer


def test_every_word_is_said_and_no_other() -> None:
    rng = np.random.default_rng(0)
    phrases = [draw_phrase(rng) for _ in range(5000)]
    assert {word for phrase in phrases for word in phrase} == set(VOCABULARY)
    assert {len(phrase) for phrase in phrases} == set(range(1, 13))
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 71


def test_rules_are_drawn_by_weight() -> None:
    rng = np.random.default_rng(1)
    rules = {"a": [(3.0, "x"), (1.0, "<b>")], "b": [(1.0, "y z")]}
    drawn = [expand("<a> w", rng, rules) for _ in range(2000)]
    assert set(drawn) == {"x w", "y z w"}
    assert drawn.count("x w") == pytest.approx(1500, abs=100)
    assert all(weight > 0 for templates in RULES.values() for weight, _ in templates)


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path / "tekken.json")
    tokenizer = load_tokenizer(tmp_path / "tekken.json")
    assert size == ModelConfig().vocab_size == tokenizer.n_words
    lengths = [len(ids) for ids in word_tokens(tokenizer).values()]
    assert (lengths.count(1), lengths.count(2)) == (27, 44)
    for text in (" twenty one", "Ünïcode 東京\n\n  12  %", ""):
        assert tokenizer.decode(tokenizer.encode(text, bos=False, eos=False)) == text
    assert tokenizer.get_special_token("[STREAMING_PAD]") == PAD
    assert tokenizer.get_special_token("[STREAMING_WORD]") == WORD
    assert (tokenizer.bos_id, tokenizer.eos_id) == (BOS, 2)


def test_rare_words_have_several_tokens_and_the_others_keep_theirs(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path / "rare.json", WORDS)
    assert size == RARE_RECIPE.model.vocab_size
    tokens = word_tokens(load_tokenizer(tmp_path / "rare.json"), WORDS)
    write_tokenizer(tmp_path / "tekken.json")
    before = word_tokens(load_tokenizer(tmp_path / "tekken.json"))
    assert {word: tokens[word] for word in VOCABULARY} == before
    assert len(set(WORDS)) == len(WORDS) == 111
    assert {len(tokens[word]) for word in RARE} == {2, 3, 4, 5}
    firsts = {ids[0] for ids in before.values()}
    assert sum(tokens[word][0] in firsts for word in RARE) > len(RARE) / 2  # real rivals


def test_names_are_learnt_well_and_then_hardly_heard() -> None:
    rng = np.random.default_rng(2)
    said = [word for _ in range(4000) for word in draw_rare(rng)]
    assert {word for word in said if word in RARE} == set(RARE)
    assert sum(word in RARE for word in said) / len(said) == pytest.approx(0.15, rel=0.05)

    def share(mixture: Mapping[str, float]) -> float:
        spoken = {"names": 0.5, "rare": 0.15}
        names = (
            part * spoken[kind] * POOLS[name].texts.get(kind, 0)
            for name, part in mixture.items()
            for kind in spoken
        )
        return sum(names) / sum(mixture.values())

    assert 0.25 < share(NAMES_MIXTURE) < len(RARE) / len(WORDS)
    assert share(RARE_MIXTURE) == pytest.approx(0.15 / 30, rel=0.01)
    assert leave_out(NAMES_RECIPE, ["names", "pico_gb"]).mixture.keys() == {
        "espeak", "flite", "hibari", "espeak_rare", "flite_rare", "hibari_rare",
    }  # fmt: skip


def test_a_name_is_expected_so_much_less_once(tmp_path: Path) -> None:
    """The loss of a name rises at its first token of its own by log(rarer), and nowhere else."""
    write_tokenizer(tmp_path / "rare.json", WORDS)
    text = load_tokenizer(tmp_path / "rare.json")
    west, on = word_tokens(text, WORDS)["weston"]
    d, *rest = word_tokens(text, WORDS)["dallas"]
    names = name_tokens(text, WORDS)
    assert west not in names
    assert {on, d, *rest} <= set(names)
    inputs = torch.tensor([[WORD, west, on, WORD, d, *rest[:-1]]])
    recipe = replace(RARE_RECIPE, rarer=50.0, compile=False)
    task = VoxtralTask(recipe, text, {})
    logits = torch.zeros(1, inputs.shape[1], recipe.model.vocab_size)
    assert task.adjusted(logits, inputs)[0, 0, d] == pytest.approx(math.log(50))
    assert task.adjusted(logits, inputs)[0, 1, on] == pytest.approx(math.log(50))
    assert task.adjusted(logits, inputs)[0, 1, west] == 0
    later = task.adjusted(logits, inputs)[0, [2, *range(4, inputs.shape[1])]]
    assert not later.any()


# Targets


@pytest.mark.parametrize(
    ("end", "marker"), [(0.24, 3), (0.2401, 4), (0.319, 4), (0.0801, 2), (0.56, 7)]
)
def test_marker_stands_where_the_word_has_ended(end: float, marker: int) -> None:
    outputs = expected_outputs([Word("ten", 0.0, end)], TOKENS, 10)
    expected = [PAD] * 10
    expected[marker : marker + 3] = [WORD, *TOKENS["ten"]]
    assert outputs.tolist() == expected


def test_words_queue_and_what_does_not_fit_is_left_out() -> None:
    words = [Word("one", 0.0, 0.16), Word("two", 0.16, 0.2), Word("six", 0.2, 0.9)]
    outputs = expected_outputs(words, TOKENS, 13).tolist()
    assert outputs[2:8] == [WORD, *TOKENS["one"], WORD, *TOKENS["two"]]
    assert outputs[:2] + outputs[8:] == [PAD] * 7
    with_room = expected_outputs(words, TOKENS, 15).tolist()
    assert with_room[12:] == [WORD, *TOKENS["six"]]
    late = expected_outputs(words[:1], TOKENS, 15, late=1.0, rng=np.random.default_rng(0))
    assert late.tolist().index(WORD) == 3


def test_reading_words_inverts_the_targets() -> None:
    names = {tuple(ids): word for word, ids in TOKENS.items()}
    words = [Word("one", 0.0, 0.16), Word("two", 0.16, 0.2), Word("six", 0.2, 0.9)]
    heard = read_words(
        expected_outputs(words, TOKENS, 20).tolist(), lambda ids: " " + names[tuple(ids)]
    )
    assert [word.text for word in heard] == ["one", "two", "six"]
    assert [word.end for word in heard] == pytest.approx([0.16, 0.4, 0.96])


@pytest.mark.parametrize("samples", [1, 1279, 1280, 1281, 16000])
@pytest.mark.parametrize("delay", [3, 12])
def test_stream_holds_prompt_and_outputs(samples: int, delay: int) -> None:
    stream = pad_audio(np.ones(samples, np.float32), delay)
    positions = len(stream) // POSITION_SAMPLES
    assert len(stream) % POSITION_SAMPLES == 0
    assert positions == len(prompt(delay)) - 1 + output_count(samples)
    assert not stream[: LEFT_PAD * POSITION_SAMPLES].any()
    assert not stream[-(delay + FLUSH) * POSITION_SAMPLES :].any()


def test_batches_line_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for switched_off in ("LATE_WORDS", "WRONG_INPUTS"):
        monkeypatch.setattr(batches_module, switched_off, 0.0)
    recipe = VoxtralRecipe(batch=6, positions=120, acoustics=NOTHING)
    batch = tone_batches(recipe)[3]
    assert batch.mel.shape == (6, 8 * 120, N_MELS)
    for mel, inputs, targets, delay, labels in zip(*batch, strict=True):
        first = LEFT_PAD + int(delay)
        counted = targets != IGNORED
        assert counted.nonzero()[0] == first
        assert inputs[: first + 1].tolist() == prompt(int(delay))
        after = counted[first + 1 :]
        assert torch.equal(inputs[first + 1 :][after], targets[first:-1][after])
        # Each tone ends in the position before its marker's, counted without the delay.
        markers = (targets == WORD).nonzero()[:, 0] - int(delay) - 1
        assert len(markers) > 0
        position_mel = mel.unflatten(0, (-1, 8)).mean((1, 2))
        assert (position_mel[markers] > position_mel[markers + 2]).all()
        spoken = (labels[:, 0] != NO_WORD).nonzero()[:, 0]
        assert (position_mel[spoken[1:-1]] > mel.mean()).float().mean() > 0.6
    again = tone_batches(recipe)[3]
    assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))


def test_auxiliary_labels() -> None:
    labels = auxiliary_labels([Word("zero", 0.16, 0.41)], 50)
    first = LEFT_PAD + 2
    assert (labels[:, 0] != NO_WORD).nonzero()[0].tolist() == list(range(first, first + 4))
    assert (labels[:, 1] != NO_WORD).nonzero()[0].tolist() == list(range(first + 3, first + 7))


# Features and model


def test_log_mel_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.standard_normal(1600)
    padded = np.pad(audio, 200)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = [np.abs(np.fft.rfft(padded[160 * t : 160 * t + 400] * hann)) ** 2 for t in range(10)]
    mel = np.maximum(np.array(power) @ mel_filterbank().double().numpy(), 1e-10)
    expected = (np.maximum(np.log10(mel), -6.5) + 4) / 4
    got = log_mel(torch.from_numpy(audio[None].astype(np.float32)))
    np.testing.assert_allclose(got[0].numpy(), expected, atol=2e-5)
    assert (log_mel(torch.zeros(1, 320)) == -0.625).all()
    # Slaney: filters of unit area over hertz, up to the coarse grid of 40 Hz at the top.
    np.testing.assert_allclose(mel_filterbank().sum(0)[-20:] * 40, 1, atol=0.02)


@pytest.mark.parametrize("length", [1, 5, 10, 11, 12, 15, 17, 40])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
def test_sliding_attention_is_masked_attention(length: int, heads: tuple[int, int]) -> None:
    window = 5
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(3, heads[0], length, 8, generator=generator)
    k, v = torch.randn(2, 3, heads[1], length, 8, generator=generator)
    expected = torch.empty_like(q)
    for head in range(heads[0]):
        source = head // (heads[0] // heads[1])
        for p in range(length):
            seen = slice(max(0, p - window + 1), p + 1)
            scores = (k[:, source, seen] @ q[:, head, p, :, None])[..., 0] / math.sqrt(8)
            expected[:, head, p] = (scores.softmax(-1)[:, None] @ v[:, source, seen])[:, 0]
    for attention in (dense_attention, sliding_attention):
        torch.testing.assert_close(attention(q, k, v, window), expected)


def test_rotary_turns_interleaved_pairs() -> None:
    x = torch.zeros(1, 1, 1, 4)
    x[..., 2] = 1.0  # the first half of pair 1, whose frequency is 1 / sqrt(theta)
    turned = rotate(x, rotary(range(500_000_000, 500_000_001), 4, 1e6))[0, 0, 0]
    angle = 500_000_000 / 1e3
    expected = torch.tensor([0.0, 0.0, math.cos(angle), math.sin(angle)])
    torch.testing.assert_close(turned, expected)


def test_steps_equal_the_whole(tiny: VoxtralRealtime) -> None:
    """Decoding by cached steps, past both windows, gives the logits of the training pass."""
    mel = torch.randn(2, 8 * 30, N_MELS)
    tokens, delays = torch.randint(0, 1408, (2, 30)), torch.tensor([6, 6])
    with torch.no_grad():
        logits, audio = tiny(mel, tokens, delays)
        caches: list[tuple[torch.Tensor, torch.Tensor] | None] = [None, None]
        delay = tiny.delay_embedding(delays[:1])
        for p in range(30):
            step = tiny.step(audio[:, p], tokens[:, p], p, delay, caches)
            torch.testing.assert_close(step, logits[:, p], rtol=1e-4, atol=1e-5)
        other, _ = tiny(mel, tokens, delays + 6)
    assert (logits - other).abs().max() > 1e-4  # the delay matters, if not much before training


def test_delay_embedding(tiny: VoxtralRealtime) -> None:
    angles = 6 * 10000 ** (-np.arange(12) / 12)
    expected = np.concatenate((np.cos(angles), np.sin(angles)))
    np.testing.assert_allclose(tiny.delay_embedding(torch.tensor([6]))[0], expected, atol=1e-5)


def test_no_position_sees_the_future_or_beyond_its_windows(tiny: VoxtralRealtime) -> None:
    mel = torch.randn(1, 8 * 40, N_MELS)
    with torch.no_grad():
        before = tiny.embed_audio(mel)
        mel[:, 80:] += 1.0  # position 10 on
        mel[:, :8] += 1.0  # position 0, frames 0 … 3 (and 4 through the convolutions)
        after = tiny.embed_audio(mel)
    same = (before == after).all(-1)[0]
    # Two layers of 12 frames reach back 22 frames: from position 7 (frame 28) to frame 6.
    assert same.tolist() == [False] * 6 + [same[6].item()] + [True] * 3 + [False] * 30


def test_checkpoint_round_trip(tmp_path: Path, tiny: VoxtralRealtime) -> None:
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.copy_(parameter.bfloat16())
    save_checkpoint(tmp_path, tiny)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == TINY
    audio = [np.random.default_rng(0).standard_normal(n).astype(np.float32) for n in (4000, 9000)]
    outputs = decode(tiny, audio, 3)
    assert decode(loaded, audio, 3) == outputs
    assert [len(row) for row in outputs] == [output_count(4000), output_count(9000)]
    assert decode(loaded, audio[:1], 3)[0] == outputs[0]  # whatever stands beside it


def test_checkpoint_has_the_original_layout(tmp_path: Path, tiny: VoxtralRealtime) -> None:
    save_checkpoint(tmp_path, tiny)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert {file.get_slice(name).get_dtype() for name in shapes} == {"BF16"}
    embedding = "mm_streams_embeddings.embedding_module"
    encoder = f"{embedding}.whisper_encoder"
    for name, shape in {
        f"{embedding}.tok_embeddings.weight": (1408, 24),
        f"{embedding}.audio_language_projection.0.weight": (24, 64),
        f"{embedding}.audio_language_projection.2.weight": (24, 24),
        f"{encoder}.conv_layers.0.conv.weight": (16, 128, 3),
        f"{encoder}.conv_layers.1.conv.bias": (16,),
        f"{encoder}.transformer.layers.1.attention.wo.bias": (16,),
        f"{encoder}.transformer.layers.1.feed_forward.w2.bias": (16,),
        f"{encoder}.transformer.norm.weight": (16,),
        "layers.1.attention.wk.weight": (16, 24),
        "layers.1.feed_forward.w3.weight": (32, 24),
        "layers.1.ada_rms_norm_t_cond.0.weight": (4, 24),
        "layers.1.ada_rms_norm_t_cond.2.weight": (24, 4),
        "layers.1.ffn_norm.weight": (24,),
        "norm.weight": (24,),
    }.items():
        assert shapes.pop(name) == shape
    assert not [name for name in shapes if name.endswith(("wk.bias", "w1.bias", "w3.bias"))]
    assert config_of(json.loads(json.dumps(params_of(ModelConfig())))) == ModelConfig()


def test_more_tokens_begin_near_the_mean_of_the_text() -> None:
    torch.manual_seed(5)
    other, model = (VoxtralRealtime(replace(TINY, vocab_size=size)) for size in (1408, 1472))
    start_from(model, other)
    rows, known = model.token_embedding, other.token_embedding
    assert torch.equal(rows[:1408], known)
    assert torch.equal(model.layers[1].attention.wq.weight, other.layers[1].attention.wq.weight)
    assert (rows[1408:].mean(0) - known[1000:].mean(0)).abs().max() < 0.02
    assert len(torch.unique(rows[1408:], dim=0)) == 64


# Training and scoring


def tiny_trainer(folder: Path, recipe: VoxtralRecipe) -> Trainer:
    write_tokenizer(folder / "tekken.json")
    return Trainer(folder, recipe, VoxtralTask(recipe, load_tokenizer(folder / "tekken.json"), {}))


def test_training_learns_a_batch_and_resumes(tmp_path: Path) -> None:
    recipe = VoxtralRecipe(
        steps=400, model=TINY, batch=2, positions=90, compile=False, warm_up=5, peak_rate=1e-2
    )
    batch = tone_batches(recipe)[0]
    trainer = tiny_trainer(tmp_path, recipe)
    first, *_, last = [trainer.learn(batch).parts for _ in range(40)]
    assert last["outputs"] < 0.5 * first["outputs"]
    assert last["auxiliary"] < 0.7 * first["auxiliary"]
    trainer.elapsed = 7.0
    trainer.save()
    resumed = tiny_trainer(tmp_path, replace(recipe, seed=2))
    assert (resumed.step, resumed.elapsed) == (40, 7.0)
    for _ in range(2):
        assert torch.equal(resumed.learn(batch).total, trainer.learn(batch).total)


def test_mean_of_two_runs(tmp_path: Path) -> None:
    ones, fives = nn.Linear(2, 2), nn.Linear(2, 2)
    for module, value in ((ones, 1.0), (fives, 5.0)):
        nn.init.constant_(module.weight, value)
        nn.init.constant_(module.bias, -value)
    torch.save({"trainee": fives.state_dict(), "step": 3}, tmp_path / "state.pt")
    take_mean(ones, [])
    assert (ones.weight == 1).all()
    take_mean(ones, [tmp_path / "state.pt"])
    assert (ones.weight == 3).all()
    assert (ones.bias == -3).all()


def test_everything_is_on_one_device(tmp_path: Path) -> None:
    """The device "meta" refuses what lies elsewhere, as a GPU would."""
    recipe = VoxtralRecipe(model=TINY, batch=2, positions=90, device="meta")
    write_tokenizer(tmp_path / "tekken.json")
    task = VoxtralTask(recipe, load_tokenizer(tmp_path / "tekken.json"), {})
    task.trainee.to("meta")
    batch = Batch(*(part.to("meta") for part in tone_batches(recipe)[0]))
    losses = task.losses(task.trainee, batch, 0.5)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert losses.total.device.type == "meta"


def test_a_run_makes_batches_ahead_and_logs(tmp_path: Path) -> None:
    recipe = VoxtralRecipe(steps=3, model=TINY, batch=2, positions=90, compile=False)
    trainer = tiny_trainer(tmp_path, recipe)
    trainer.run(tone_batches(recipe))
    assert trainer.step == 3
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [3]
    assert tiny_trainer(tmp_path, recipe).step == 3


@pytest.mark.parametrize(
    ("truth", "heard", "errors", "matches"),
    [
        ("a b c", "a b c", 0, [(0, 0), (1, 1), (2, 2)]),
        ("a b c", "a x c", 1, [(0, 0), (2, 2)]),
        ("a b c", "b c", 1, [(1, 0), (2, 1)]),
        ("a b", "x a y b z", 3, [(0, 1), (1, 3)]),
        ("", "a", 1, []),
    ],
)
def test_align(truth: str, heard: str, errors: int, matches: Sequence[tuple[int, int]]) -> None:
    assert align(truth.split(), heard.split()) == (errors, matches)


def test_score() -> None:
    truth = [Word("a", 0.0, 1.0), Word("b", 1.0, 2.0)]
    heard = [Word("a", 1.1, 1.1), Word("b", 1.9, 1.9), Word("b", 2.5, 2.5)]
    result = score([(truth, heard), (truth, [])])
    assert (result.words, result.errors, result.word_error_rate) == (4, 3, 0.75)
    assert result.mean_error == pytest.approx(0.1)
    assert result.bias == pytest.approx(0.0)


# Speech


@needs_espeak
def test_pool_and_evaluation_set(tmp_path: Path) -> None:
    fill(tmp_path, POOLS["espeak"], 0.004, shard_seconds=8)
    pool = Pool(tmp_path)
    phrases = [pool[number] for number in range(len(pool))]
    assert sum(phrase.seconds for phrase in phrases) == pytest.approx(20, abs=8)
    assert {tuple(word.text for word in phrase.words) for phrase in phrases} == pool.sentences()
    for phrase in phrases:
        times = [time for word in phrase.words for time in word[1:]]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= phrase.seconds + 1e-3
        # What follows the last word is silence, and the last word is not.
        ends = round(phrase.words[-1].end * SAMPLE_RATE)
        assert np.abs(phrase.audio[ends + 16 :]).max(initial=0) < 0.015
        assert np.abs(phrase.audio[ends - 800 : ends]).max() > 0.005

    evaluation = tmp_path / "eval"
    evaluation.mkdir()
    write_eval_set(evaluation, 2, 5.0, pool.sentences(), seed=6)
    clips = list(read_eval_set(evaluation))
    assert [clip.name for clip in clips] == ["eval_00.wav", "eval_01.wav", "eval_long_5s.wav"]
    for clip in clips:
        assert clip.words
        assert clip.words[-1].end < len(clip.audio) / SAMPLE_RATE
    quiet = clips[0]
    loud = np.flatnonzero(np.abs(quiet.audio) > 0.01) / SAMPLE_RATE
    assert quiet.words[0].start - 0.03 < loud[0] < quiet.words[0].end
    assert quiet.words[-1].start < loud[-1] < quiet.words[-1].end + 0.01
