"""Tests of the calibration, on words that are made up."""

import json
from pathlib import Path

import numpy as np
import pytest

from . import calibrate as module
from .__main__ import Run, leave_out, parse
from .calibrate import Heard, Pair, best_threshold, calibrate
from .clips import Clip
from .config import Recipe
from .qwen3_asr import steps as qwen3_asr
from .speech import Word
from .voxtral import steps as voxtral

SAID = [Word("one", 0.3, 0.6), Word("seven", 1.0, 1.5), Word("two", 1.5, 1.8)]


def heard(*probabilities: float, late: float = 0.0) -> list[Heard]:
    return [
        Heard(text, start + late, end + late, probability)
        for (text, start, end), probability in zip(SAID, probabilities, strict=True)
    ]


@pytest.mark.parametrize(("noise", "expected"), [(0.32, 0.35), (0.62, 0.65), (0.97, 0.0)])
def test_threshold_weighs_lost_words_against_invented_ones(noise: float, expected: float) -> None:
    """Words are sure to 0.9; what silence makes up is as likely as ``noise``."""
    invented = [[Heard("hours", 0, 1, noise)] for _ in range(2)]
    threshold, errors = best_threshold([SAID, [], []], [heard(0.9, 0.92, 0.91), *invented])
    assert threshold == pytest.approx(expected, abs=0.051)
    assert errors == (2 if noise > 0.92 else 0)


def test_timing_of_voxtral() -> None:
    """Markers 100 ms late are moved; starts follow from the letters."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(200):
        letters = int(rng.integers(3, 9))
        end = rng.uniform(1, 9)
        said = Word("x" * letters, end - 0.1 - 0.04 * letters, end)
        pairs.append(Pair(said, 0.5, Heard(said.text, 0.0, end + 0.1, 1.0)))
    before = {"word_timing": {"end_offset": -0.5, "least_pause": 0.24}, "other": 1}
    fitted = voxtral.fit_timing(before, pairs)
    assert fitted["other"] == 1
    timing = fitted["word_timing"]
    assert timing["end_offset"] == pytest.approx(-0.5 - 0.1 / 0.08)
    assert timing["start_base"] == pytest.approx(0.1)
    assert timing["start_per_character"] == pytest.approx(0.04)
    assert timing["least_pause"] == 0.24


def test_timing_of_qwen3_asr() -> None:
    pairs = [
        Pair(word, 0.5, Heard(word.text, word.start + 0.03, word.end - 0.05, 1.0)) for word in SAID
    ]
    fitted = qwen3_asr.fit_timing(
        {"attention_timing": {"start_lead": 0.2, "end_trail": 0.1}}, pairs
    )
    assert fitted["attention_timing"] == {"start_lead": 0.23, "end_trail": 0.15}


@pytest.mark.parametrize(("copies", "offset"), [(1, -0.5), (20, -1.5)])
def test_calibration_writes_what_fits(
    copies: int, offset: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three words say nothing about the timing, sixty do."""
    seen = []

    def transcribe(checkpoint: Path, clips: list[Clip]) -> list[list[Heard]]:
        seen.append(json.loads((checkpoint / "voxfast.json").read_text())["least_probability"])
        return [*[heard(0.9, 0.9, 0.9, late=0.08)] * copies, [Heard("on", 0, 1, 0.5)]]

    monkeypatch.setattr(module, "_transcribe", transcribe)
    silence = np.zeros(160, np.float32)
    clips = [*[Clip(silence, SAID, [])] * copies, Clip(silence, [], [])]
    line = calibrate(tmp_path, clips, voxtral.TRAITS, voxtral.fit_timing)
    assert seen == [0.0]
    written = json.loads((tmp_path / "voxfast.json").read_text())
    assert 0.5 < written["least_probability"] < 0.9
    assert written["word_timing"]["end_offset"] == pytest.approx(offset)
    assert f"0 errors in {3 * copies} words" in line
    assert ("not fitted" in line) == (copies == 1)


def test_steps_may_stand_anywhere_on_the_command_line() -> None:
    options = parse(["voxtral-numbers", "--out", "here", "--hours", "2", "tokenizer", "train"])
    assert (options.model, options.steps) == ("voxtral-numbers", ["tokenizer", "train"])
    assert parse(["qwen3-asr-numbers", "train", "--out", "here"]).steps == ["train"]
    with pytest.raises(SystemExit):
        parse(["voxtral-numbers", "--out", "here", "trian"])


def test_leaving_out() -> None:
    recipe = leave_out(Recipe(), ["kokoro", "room", "others"])
    assert set(recipe.mixture) == {
        "espeak",
        "flite",
        "festival",
        "hibari",
        "hibari_slow",
        "flite_slow",
        "espeak_digits",
        "flite_digits",
        "hibari_digits",
        "pico_abroad",
        "pico_abroad_digits",
    }
    assert recipe.acoustics.room == 0
    assert recipe.acoustics.noises == Recipe().acoustics.noises
    for name in (
        "mouth",
        "lost_words",
        "evened",
        "tract",
    ):  # what is no probability is left out, too
        assert getattr(leave_out(Recipe(), [name]).acoustics, name) == 0
    kinds = leave_out(Recipe(), ["slow", "digits"])
    assert len(kinds.mixture) == len(Recipe().mixture) - 8
    with pytest.raises(SystemExit, match="neither an engine"):
        leave_out(Recipe(), ["rooms"])


def test_a_mean_with_no_run_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nowhere.*state.pt is missing"):
        Run("voxtral-numbers", tmp_path, Recipe(), mean=[tmp_path / "nowhere"]).train()
