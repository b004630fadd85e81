"""Voices that were in no training: held-out pseudo-speakers, and words that are to be left out."""

import json

import pytest
from evaluation import DATA_FOLDER

import voxfast
from voxfast.bench.scoring import word_error_rate

FOLDER = DATA_FOLDER / "speakers"


@pytest.fixture(scope="module")
def heard() -> dict[str, list[tuple[str, str]]]:
    """(said, heard) of each clip by its kind of voice, at the defaults."""
    items = json.loads((FOLDER / "eval.json").read_text())["items"]
    found: dict[str, list[tuple[str, str]]] = {}
    with voxfast.load("voxtral-numbers") as model:
        for item in items:
            text = voxfast.transcribe(FOLDER / item["file"], model=model).text.strip()
            found.setdefault(item["file"].split("_")[1], []).append((item["transcript"], text))
    return found


@pytest.mark.parametrize("voice", ["pico", "hibari", "kokoro"])
def test_voices_that_were_never_heard(heard: dict[str, list[tuple[str, str]]], voice: str) -> None:
    said, words = zip(*heard[voice], strict=True)
    assert len(said) == 8
    assert word_error_rate(said, words) <= 0.12


def test_other_words_write_little(heard: dict[str, list[tuple[str, str]]]) -> None:
    written = sum(len(text.split()) for _, text in heard["others"])
    assert written <= 8  # in 48 s; 31 before there was such speech in its training
