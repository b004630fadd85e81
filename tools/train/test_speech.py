"""Tests of engines, pools and augmentation; engines that are not installed are skipped by name."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import Generator

from . import synthesis
from .augment import (
    ALONE,
    KINDS,
    MOST_PROLONGED,
    PROLONGED,
    Acoustics,
    clip_peaks,
    coarse,
    draw_channels,
    draw_filterbanks,
    echo,
    gate,
    hush,
    interference,
    lose,
    prolong,
    stretch,
    stretch_words,
)
from .clips import Noise, draw_scene, shortened
from .engines import ENGINES, FLUENT, ISOLATED, SLOW, STYLES, Speaker, Style, Utterance, engine
from .engines.base import Engine, played_at, word_starts
from .engines.hibari import shift_formants
from .engines.phonemes import Accent, draw_accent, phonemes
from .engines.pico import ABROAD, spell
from .evalset import read_eval_set, write_speaker_set
from .grammar import DIGITS, RARE, VOCABULARY, draw_digits, draw_drill
from .mel import MEL_BINS, mel_filterbank
from .mixture import (
    CALIBRATION,
    EVALUATION,
    MIXTURE,
    POOLS,
    RARE_DEV,
    RARE_TEST,
    TRAINING,
    PoolPlan,
)
from .pool import Mixture, Pool, read_manifest, write_shard
from .speech import SAMPLE_RATE, Phrase, Word
from .synthesis import draw_texts, fill, join, say_phrase, word_times


class Tones:
    """An engine whose every word is 0.25 s of tone and 0.15 s of silence."""

    packages: tuple[str, ...] = ("numpy",)

    def __init__(self, pauses: bool = True) -> None:
        self.pauses = pauses
        self.texts: list[Sequence[str]] = []

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        self.texts.append(words)
        audio = np.zeros((len(words), 6400), np.float32)
        audio[:, :4000] = np.sin(np.arange(4000) * (0.1 + 0.01 * speaker.number))
        starts = [0.4 * place for place in range(len(words))]
        return Utterance(audio.ravel(), starts, "tones")


def plan(**changes: object) -> PoolPlan:
    return PoolPlan("test", "tones", 3, 1.0, **changes)  # type: ignore[arg-type]


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> Tones:
    speech = Tones()
    monkeypatch.setattr(synthesis, "engine", lambda name: speech)
    return speech


# Engines

WORDS = ("thirteen", "minus", "forty", "green")


def available(name: str) -> Engine:
    """The engine; the test is skipped where it is not installed."""
    try:
        return engine(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name}: {error}")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("style", STYLES.values(), ids=list(STYLES))
def test_engine_says_words(name: str, style: Style) -> None:
    speech = available(name)
    phrase = None
    for number in range(5):  # an engine may refuse a phrase now and then
        rng = np.random.default_rng(number)
        phrase = phrase or say_phrase(speech, WORDS, style, Speaker(number), rng)
        if phrase is None and not style.apart and name.startswith("pico"):
            return  # it tells no times of words in a sentence
    assert phrase is not None
    assert [word.text for word in phrase.words] == list(WORDS)
    for word in phrase.words:
        inside = phrase.audio[int(word.start * SAMPLE_RATE) : int(word.end * SAMPLE_RATE)]
        assert np.abs(inside).max() > 0.05
        assert 0.06 <= word.end - word.start <= 1.6


def test_every_pool_has_an_engine_and_sets_of_speakers_are_apart() -> None:
    for pool in POOLS.values():
        assert pool.engine in ENGINES
        assert pool.part == 0 or pool.speakers == TRAINING
        assert pool.part > 0 or pool.speakers in (CALIBRATION, EVALUATION, RARE_TEST, RARE_DEV)
        assert set(pool.styles) <= set(STYLES)
        assert set(pool.texts) <= set(synthesis.TEXTS)
    assert {POOLS[name].engine for name in MIXTURE}.isdisjoint({"pico_gb", "pico_us"})
    spans = sorted([TRAINING, CALIBRATION, EVALUATION, RARE_TEST, RARE_DEV])
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert len({pool.seed for pool in POOLS.values()}) == len(POOLS)


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match="no engine 'sam'"):
        engine("sam")


def test_word_starts_follow_the_durations() -> None:
    symbols = ["_", "ˈ", "a", "b", ",", " ", "c", ".", " ", " ", "d", "_"]
    starts = word_starts(symbols, np.full(12, 4.0), 0.5)
    # Three frames ahead, and half a space, if there is one before the word.
    assert starts == [0.5 * (4 - 3), 0.5 * (24 - 3 - 2), 0.5 * (40 - 3 - 2)]
    assert word_starts(["_", "a"], np.array([1.0, 4.0]), 0.5) == [0.0]


def hiss_starts(audio: np.ndarray) -> np.ndarray:
    """Seconds at which 40 ms or more begin whose power is above 4 kHz, by and large."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, 80), 160)[::40]
    power = np.abs(np.fft.rfft(frames * np.hanning(160), axis=1)) ** 2
    total = power.sum(1)
    hisses = (power[:, 40:].sum(1) > 0.3 * total) & (total > 3e-4 * total.max())
    edges = np.flatnonzero(np.diff(np.concatenate(([0], hisses, [0]))))
    return np.array([first for first, after in edges.reshape(-1, 2) if after - first >= 16]) / 400


@pytest.mark.parametrize(
    ("accent", "said"),
    [
        ({}, "θˈɜɹTi fˈIv."),
        ({"θ": "s", "$v": "f"}, "sˈɜɹTi fˈIf."),
        ({"ɜɹ": "ɛɹ", "ɹ": "r", "T": "t"}, "θˈɛɹti fˈIv."),  # the longer sound, and only once
        ({"w": "v", "$d": "t"}, "θˈɜɹTi fˈIv."),
    ],
)
def test_an_accent_puts_other_sounds_in_their_place(accent: Accent, said: str) -> None:
    available("hibari")
    rng = np.random.default_rng(1)
    assert phonemes(("thirty", "five"), FLUENT, british=False, accent=accent, rng=rng) == said


def test_half_of_the_speakers_have_an_accent_of_their_own() -> None:
    accents = [draw_accent(Speaker(number).traits()) for number in range(*TRAINING)]
    assert 0.4 < sum(map(bool, accents)) / len(accents) < 0.6
    assert draw_accent(Speaker(5).traits()) == accents[5]
    assert len({tuple(accent) for accent in accents}) > 100


@pytest.mark.parametrize("name", ["espeak", "flite", "hibari", "kokoro"])
def test_a_word_starts_with_its_first_sound(name: str) -> None:
    """Words that are cut out of fluent speech would lose it, and end with another word's."""
    speech = available(name)
    offsets: list[float] = []
    for number in range(4):
        words = ("one", "six", "nine", "seven", "eight", "sixty", "on", "six", "one")
        rng = np.random.default_rng(number)
        said = speech.say(words, FLUENT, Speaker(number), rng)
        hisses = hiss_starts(said.audio)
        for word, start in zip(words, said.starts, strict=True):
            if word.startswith("s") and len(near := hisses[np.abs(hisses - start) < 0.2]):
                offsets.append(float(near[np.abs(near - start).argmin()] - start))
    assert len(offsets) >= 8
    assert abs(float(np.median(offsets))) < 0.04


def test_played_faster_is_higher_and_shorter() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(24000) / 24000).astype(np.float32)
    audio, starts = played_at(tone, 24000, 1.25, [0.5])
    spectrum = np.abs(np.fft.rfft(audio))
    assert starts == [0.4]
    assert len(audio) == pytest.approx(0.8 * SAMPLE_RATE, abs=2)
    assert spectrum.argmax() * SAMPLE_RATE / len(audio) == pytest.approx(500, abs=3)


def test_formants_move_up() -> None:
    spectrum = np.zeros((100, 3), np.float32)
    spectrum[40] = 1
    assert shift_formants(spectrum, 1.25).argmax(0).tolist() == [50, 50, 50]
    assert shift_formants(spectrum, 0.8).argmax(0).tolist() == [32, 32, 32]


# Phrases


def test_word_times_are_the_audible_parts() -> None:
    audio = np.zeros(SAMPLE_RATE * 2, np.float32)
    audio[1600:6400] = 0.5  # a word from 0.1 s to 0.4 s …
    audio[7000:12800] = 0.5  # … then, after less than a pause, one to 0.8 s …
    audio[16000:20000] = 0.5  # … and one from 1 s to 1.25 s
    spans = word_times(audio, [0.0, 0.43, 0.9])
    expected = [(0.095, 0.43), (0.4325, 0.8), (0.995, 1.25)]
    assert spans is not None
    np.testing.assert_allclose(spans, expected, atol=2e-4)
    assert word_times(audio, [0.0, 1.3]) is None  # the last word would be silent
    assert word_times(np.full(SAMPLE_RATE * 2, 0.5, np.float32), [0.0]) is None  # too long


def test_joined_words_stand_where_their_times_say() -> None:
    pieces = [(text, np.full(3200, 0.5, np.float32)) for text in ("one", "two", "six")]
    audio, words = join(pieces, np.random.default_rng(0))
    for before, after in pairwise(words):
        assert 0.02 <= after.start - before.end <= 0.6
    for word in words:
        assert audio[int((word.start + 0.1) * SAMPLE_RATE)] == 0.5
        assert word.end - word.start == pytest.approx(0.2)
    spoken = sum(np.abs(audio) > 0.4)
    assert spoken == pytest.approx(3 * 3200, abs=500)  # the ends are faded


@pytest.mark.parametrize("style", [ISOLATED, SLOW, FLUENT], ids=lambda style: style.name)
@pytest.mark.parametrize("pauses", [True, False])
def test_words_are_said_apart_where_the_engine_makes_no_pauses(style: Style, pauses: bool) -> None:
    speech = Tones(pauses)
    phrase = say_phrase(speech, ["one", "two"], style, Speaker(4), np.random.default_rng(0))
    assert phrase is not None
    assert [word.text for word in phrase.words] == ["one", "two"]
    assert phrase.voice == "tones 4"
    alone = style.apart and not pauses
    assert speech.texts == ([["one"], ["two"]] if alone else [["one", "two"]])


def test_drills_are_of_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    said = {word for _ in range(500) for word in draw_drill(rng)}
    assert said <= set(VOCABULARY)
    assert {"minus", "thirteen", "thirty", "green", "three"} <= said


def test_strings_of_digits() -> None:
    rng = np.random.default_rng(5)
    strings = [draw_digits(rng) for _ in range(200)]
    assert {word for string in strings for word in string} == set(DIGITS)
    assert {len(string) for string in strings} == set(range(2, 13))


def test_other_words_are_none_of_the_vocabulary() -> None:
    pytest.importorskip("hibari")
    from .engines.phonemes import pronounce
    from .others import draw_others, other_words

    rng = np.random.default_rng(0)
    said = {word.lower() for _ in range(1000) for word in draw_others(rng)}
    assert len(said) > 1000
    known = {pronounce(word, False).replace("ˈ", "") for word in VOCABULARY}
    for word in said:
        assert not any(len(v) >= 3 and v in word for v in VOCABULARY), word
        assert pronounce(word, False).replace("ˈ", "") not in known, word
    assert not {"for", "too", "won", "fine", "fore", "green", *RARE} & (said | set(other_words()))


# Pools


def test_pool_grows_and_goes_on(tmp_path: Path, tones: Tones) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert fill(whole, plan(), 40 / 3600, 12) >= 40 / 3600
    fill(stopped, plan(), 12 / 3600, 12)
    (stopped / "0001.i16").write_bytes(b"half of a shard")
    fill(stopped, plan(), 40 / 3600, 12)
    one, other = Pool(whole), Pool(stopped)
    assert len(one) == len(other) > 10
    noted = sum(shard["seconds"] for shard in read_manifest(whole)["shards"])
    assert one.seconds == pytest.approx(noted, abs=0.1)
    for number in range(len(one)):
        np.testing.assert_array_equal(one[number].audio, other[number].audio)
        assert one[number].words == other[number].words
        assert one[number].voice == other[number].voice
    assert read_manifest(whole)["sources"] == {"numpy": np.__version__}


def test_pool_of_another_plan_is_refused(tmp_path: Path, tones: Tones) -> None:
    fill(tmp_path, plan(), 0.001, 4)
    with pytest.raises(SystemExit, match="another plan"):
        fill(tmp_path, plan(speakers=CALIBRATION), 0.001, 4)


def test_other_words_make_phrases_without_words(tmp_path: Path, tones: Tones) -> None:
    pytest.importorskip("hibari")
    fill(tmp_path, plan(texts={"others": 1.0}), 0.001, 4)
    pool = Pool(tmp_path)
    assert len(pool) > 0
    assert all(pool[number].words == [] and pool[number].seconds > 1 for number in range(len(pool)))


def test_texts_are_long_enough_for_the_engines() -> None:
    rng = np.random.default_rng(0)
    lengths = {len(draw_texts(kind, rng)) for kind in ("phrases", "drills") for _ in range(200)}
    assert min(lengths) == 6
    assert max(lengths) <= 14


def test_mixture_draws_by_part_and_keeps_a_voice_together(tmp_path: Path) -> None:
    pools = {}
    for place, name in enumerate(("a", "b")):
        folder = tmp_path / name
        folder.mkdir()
        phrases = [
            Phrase(np.zeros(1600, np.float32), [Word("one", 0.0, 0.1)], f"{name}{number % 3}")
            for number in range(12 + place)
        ]
        entry = write_shard(folder, 0, phrases)
        synthesis._save(folder, {"shards": [entry]})
        pools[name] = Pool(folder)
    mixture = Mixture(pools, {"a": 1.0, "b": 3.0})
    rng = np.random.default_rng(0)
    assert len(mixture) == 25
    drawn = [mixture[int(n)].voice[0] for _ in range(60) for n in mixture.choose(rng, False)]
    assert drawn.count("b") / len(drawn) == pytest.approx(0.75, abs=0.03)
    for _ in range(30):
        assert len({mixture[int(n)].voice for n in mixture.choose(rng, True)}) == 1


# Augmentation


@pytest.mark.parametrize("kind", KINDS)
def test_interference_has_unit_level(kind: str) -> None:
    sound = interference(SAMPLE_RATE * 3, np.random.default_rng(1), kind)
    assert sound.shape == (SAMPLE_RATE * 3,)
    assert sound.dtype == np.float32
    assert np.sqrt((sound**2).mean()) == pytest.approx(1, abs=1e-3)


def test_room_keeps_the_direct_sound_and_delays_the_rest() -> None:
    audio = np.zeros(SAMPLE_RATE, np.float32)
    audio[1000] = 1
    heard = echo(audio, np.random.default_rng(0))
    assert len(heard) == len(audio)
    assert heard[1000] == pytest.approx(1, abs=1e-5)
    assert np.abs(heard[:1000]).max() < 1e-5
    assert 0.01 < np.sqrt((heard[1001:] ** 2).sum()) < 0.8


def test_coarse_and_clipped() -> None:
    audio = np.linspace(-0.9, 0.9, 5001, dtype=np.float32)
    assert len(np.unique(coarse(audio))) <= 256
    np.testing.assert_allclose(coarse(audio), audio, atol=0.03)
    top = np.abs(clip_peaks(audio, np.random.default_rng(0))).max()
    assert 0.3 * 0.9 <= top <= 0.8 * 0.9


def test_channels_pass_their_band() -> None:
    rng = np.random.default_rng(0)
    telephone = draw_channels(20, Acoustics(telephone=1), rng)[:, 0].numpy()
    speech = (MEL_BINS >= 400) & (MEL_BINS <= 3100)
    assert (telephone[:, speech] == 1).all()
    assert (telephone[:, MEL_BINS > 7500] < 1e-3).all()
    none = Acoustics(telephone=0, narrow=0, microphone=0)
    assert (draw_channels(5, none, rng) == 1).all()


def test_filters_of_the_usual_tract_are_the_filterbank() -> None:
    rng = np.random.default_rng(0)
    usual = draw_filterbanks(2, Acoustics(warped=0), rng)
    torch.testing.assert_close(usual, mel_filterbank().expand(2, -1, -1))
    other = draw_filterbanks(8, Acoustics(warped=1, tract=0.2), rng)
    # Each filter keeps its area, wherever it has moved to.
    torch.testing.assert_close(other.sum(1), mel_filterbank().sum(0).expand(8, -1))
    assert (other[:2] - usual).abs().max() > 1e-3


def test_speaker_set(tmp_path: Path, tones: Tones) -> None:
    fill(tmp_path / "pool", plan(texts={"phrases": 1.0}), 0.004, 12)
    folder = tmp_path / "set"
    folder.mkdir()
    pools = {"voice": Pool(tmp_path / "pool")}
    write_speaker_set(folder, pools, 4, 6.0, seed=1)
    clips = list(read_eval_set(folder))
    assert [clip.name for clip in clips] == [f"voice_{number:02d}.flac" for number in range(4)]
    for clip in clips:
        assert len(clip.audio) == 6 * SAMPLE_RATE
        assert clip.words
        for word in clip.words:
            assert 0 <= word.start < word.end <= 6
    clean = json.loads((folder / "eval_clean.json").read_text(encoding="utf-8"))
    assert [item["file"] for item in clean["items"]] == ["voice_00.flac", "voice_02.flac"]
    word = clips[0].words[0]  # the first one as it was spoken: a tone between silences
    middle = int((word.start + word.end) / 2 * SAMPLE_RATE)
    assert np.abs(clips[0].audio[middle - 200 : middle + 200]).max() > 0.05
    before = clips[0].audio[: max(0, int((word.start - 0.05) * SAMPLE_RATE))]
    assert np.abs(before).max(initial=0) < 0.01


def test_a_gate_passes_the_loud_part_of_words_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    audio = np.zeros(2 * SAMPLE_RATE, np.float32)
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    tone[:1600] *= 0.001  # a fricative that is lost
    audio[8000:16000] = tone
    audio[24000:28000] = audio[28000:32000] = tone[4000:]
    words = [Word("six", 0.5, 1.0), Word("two", 1.5, 1.75), Word("one", 1.75, 2.0)]
    for _ in range(20):
        passed, cut = gate(audio, words, False, rng)
        assert [word.text for word in cut] == ["six", "two", "one"]
        assert cut[0].start == pytest.approx(0.6, abs=0.025)
        assert cut[0].end == pytest.approx(1.0, abs=0.025)
        assert (cut[1].end, cut[2].start) == (1.75, 1.75)  # said without a gap: not cut
        quiet = np.concatenate((passed[:9200], passed[16000:23600]))
        assert np.sqrt((quiet**2).mean()) < 0.01
        assert np.abs(passed[12000:15000]).max() > 0.8
    assert gate(audio, [], True, rng)[1] == []


def test_fricatives_are_hushed_and_vowels_stay() -> None:
    rng = np.random.default_rng(7)
    time = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    vowel = 0.1 * np.sin(2 * np.pi * 300 * time)
    hiss = 0.1 * np.sin(2 * np.pi * 5000 * time)
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    audio = np.concatenate([vowel, hiss, silence]).astype(np.float32)
    for _ in range(10):
        hushed = hush(audio, rng)
        assert hushed.dtype == np.float32
        assert len(hushed) == len(audio)
        np.testing.assert_array_equal(hushed[: SAMPLE_RATE - 800], audio[: SAMPLE_RATE - 800])
        inside = slice(SAMPLE_RATE + 800, 2 * SAMPLE_RATE - 800)
        factor = np.abs(hushed[inside]).max() / np.abs(audio[inside]).max()
        assert 10 ** (-24 / 20) - 0.01 < factor < 10 ** (-3 / 20) + 0.01
    assert len(hush(audio[:100], rng)) == 100


def test_phrases_are_shortened_at_gaps() -> None:
    rng = np.random.default_rng(8)
    audio = np.zeros(4 * SAMPLE_RATE, np.float32)
    spans = [(0.1, 0.5), (0.55, 1.0), (1.01, 1.5), (2.0, 2.5), (3.0, 3.5)]
    words = [Word(str(n), *span) for n, span in enumerate(spans)]
    for number, (start, end) in enumerate(spans, 1):
        audio[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] = 0.1 * number
    found = set()
    for _ in range(200):
        short = shortened(Phrase(audio, words, "a"), rng)
        texts = "".join(word.text for word in short.words)
        assert texts in "01234"
        found.add(texts)
        assert short.voice == "a"
        for word in short.words:  # what they say they hold
            middle = short.audio[int(0.5 * (word.start + word.end) * SAMPLE_RATE)]
            assert middle == np.float32(0.1 * (int(word.text) + 1))
            assert 0 <= word.start < word.end <= len(short.audio) / SAMPLE_RATE
    assert {"0", "12", "3", "34"} <= found  # no cut between 1 and 2
    assert not {"1", "2", "01", "23"} & found
    whole = Phrase(audio, words[1:3], "a")
    assert shortened(whole, rng) is whole
    assert shortened(Phrase(audio, [], "a"), rng).words == []


def test_words_before_a_gap_are_prolonged() -> None:
    rng = np.random.default_rng(5)
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(4000) / SAMPLE_RATE).astype(np.float32)
    audio = np.zeros(3 * SAMPLE_RATE, np.float32)
    # "two" goes over into "eight"; behind it, other words follow before "no" does.
    for first in (1000, 5000, 13000, 26000):
        audio[first : first + 4000] = tone
    words = [Word("two", 0.0625, 0.3125), Word("eight", 0.3125, 0.5625), Word("no", 1.625, 1.875)]
    lengths = {"eight": [], "no": []}
    for _ in range(60):
        longer, said = prolong(audio, words, rng)
        assert len(longer) == len(audio)
        assert said[0] == words[0]
        assert [word[:2] for word in said] == [word[:2] for word in words]
        end = int(said[1].end * SAMPLE_RATE)
        assert 9000 <= end <= 13000 - 400
        np.testing.assert_array_equal(longer[end:26000], audio[end:26000])
        for word in said[1:]:
            lengths[word.text].append(word.end - word.start)
    assert max(lengths["no"]) > 0.4
    assert min(lengths["no"]) >= ALONE[0] - 1e-3
    assert max(lengths["no"]) <= MOST_PROLONGED * 0.25 + 1e-3
    assert np.median(lengths["no"]) > 0.3
    assert np.median(lengths["eight"]) > np.median(lengths["no"])  # its t
    assert prolong(audio, [], rng)[1] == []
    (long,) = prolong(audio, [Word("no", 0.5, 0.5 + ALONE[1])], rng)[1]  # long as it is
    assert ALONE[1] - 1e-3 <= long.end - long.start <= PROLONGED * ALONE[1] + 1e-3


@pytest.mark.parametrize("length", [1, 159, 3000, 8000, 14400])
def test_stretching_keeps_pitch_and_level(length: int) -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(8000) / SAMPLE_RATE).astype(np.float32)
    longer = stretch(tone, length)
    assert len(longer) == length
    if length >= 3000:
        middle = longer[length // 4 : 3 * length // 4]
        assert np.sqrt((middle**2).mean()) == pytest.approx(np.sqrt(0.5), abs=0.03)
        ups = np.flatnonzero((middle[:-1] < 0) & (middle[1:] >= 0))
        assert np.median(np.diff(ups)) == pytest.approx(80, abs=1)


def test_lost_parts_are_short_and_inside_of_words() -> None:
    rng = np.random.default_rng(6)
    words = [Word("six", 0.1, 0.4), Word("two", 0.5, 0.55)]
    for _ in range(20):
        left = lose(np.ones(SAMPLE_RATE, np.float32), words, 1.0, rng) < 0.5
        assert not left[:1600].any()
        assert not left[8800:].any()
        assert 0.02 * SAMPLE_RATE - 1 <= left[:6400].sum() <= 0.06 * SAMPLE_RATE
        assert left[6400:].sum() <= 0.25 * 0.05 * SAMPLE_RATE
    assert (lose(np.ones(SAMPLE_RATE, np.float32), words, 0.0, rng) == 1).all()


def test_pico_abroad_spells_every_word_with_sounds_it_has() -> None:
    speech = available("pico_abroad")
    assert speech.pauses is False
    # r before a vowel, whatever the stress, and r after one.
    assert spell("ɹˈɪɹ", {"ɹ": "r", "R": "6", "ɪ": "I", "ˈ": '"'}) == 'r"I6'
    for alphabet in ABROAD.values():
        first = {s: said if isinstance(said, str) else said[0] for s, said in alphabet.items()}
        assert spell("θˈɜɹTi.", first)[-2:] in ("ti", "i:")
        for text, british in product(VOCABULARY, (False, True)):
            said = set(phonemes([text], ISOLATED, british, {}, np.random.default_rng(0)))
            assert said - {".", "ː", "ˌ"} <= set(alphabet), text


def test_a_gate_evens_the_peaks_of_words() -> None:
    rng = np.random.default_rng(2)
    audio = np.zeros(2 * SAMPLE_RATE, np.float32)
    tone = np.sin(2 * np.pi * 500 * np.arange(8000) / SAMPLE_RATE).astype(np.float32)
    audio[:8000], audio[16000:24000] = 0.8 * tone, 0.05 * tone
    words = [Word("six", 0.0, 0.5), Word("two", 1.0, 1.5)]
    passed, _ = gate(audio, words, True, rng)
    for said in (passed[2000:6000], passed[18000:22000]):
        assert 0.8 * 10**-0.2 < np.abs(said).max() < 0.8 * 10**0.2


def test_stretched_words_keep_their_ends_and_change_within() -> None:
    rng = np.random.default_rng(3)
    ramp = torch.arange(300.0)[:, None].expand(-1, 128)
    words = [Word("six", -0.02, 0.5), Word("two", 0.5, 0.55), Word("one", 1.0, 1.5)]
    stretched = ramp.clone()
    stretch_words(stretched, words, 1.0, rng, first=50)
    moved = (stretched - ramp)[:, 0].abs() > 0.5
    assert moved[52:98].any()
    assert moved[152:198].any()
    outside = torch.ones(300, dtype=torch.bool)
    outside[51:99] = outside[151:199] = False
    assert torch.equal(stretched[outside], ramp[outside])  # the short word among them
    assert (stretched[1:] >= stretched[:-1]).all()
    stretch_words(stretched, words, 0.0, rng)
    assert torch.equal(stretched[outside], ramp[outside])
    stretch_words(ramp[:60].clone(), [Word("six", 0.1, 9.0)], 1.0, rng)  # beyond the end


class SilentPool:
    """Stands in for a pool whose phrases are of other words."""

    def choose(self, rng: Generator, one_voice: bool) -> np.ndarray:
        return np.arange(3)

    def __getitem__(self, number: int) -> Phrase:
        return Phrase(np.full(8000, 0.1, np.float32), [], "other")


@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_scenes_without_words(alone: float) -> None:
    noise, rng = Noise(), np.random.default_rng(0)
    for _ in range(20):
        scene = draw_scene(SilentPool(), 3.0, Acoustics(alone=alone), noise, rng)  # type: ignore[arg-type]
        assert scene.words == []
        assert scene.audio.shape == (3 * SAMPLE_RATE,)
        assert np.isfinite(scene.audio).all()
        level = 20 * math.log10(float(np.sqrt((scene.audio**2).mean())) + 1e-9)
        assert level < 0
