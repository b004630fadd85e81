"""A small sample of what tools/fuzz.py does: mutated input of every kind, through every entry."""

from pathlib import Path

import pytest
from fuzzing.entries import ENTRIES, Entry
from hypothesis import given, settings
from hypothesis import strategies as st

RUNS = 100
FIRST = 10**9  # numbers that tools/fuzz.py does not reach: the suite adds to its runs


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", ENTRIES)
def test_mutated_input_gives_an_answer_or_an_error_of_ours(name: str, tmp_path: Path) -> None:
    entry = Entry(ENTRIES[name], tmp_path)
    for number in range(FIRST, FIRST + RUNS):
        entry.run(number)
    assert sum(entry.outcomes.values()) == RUNS
    assert 0 < entry.outcomes.get("accepted", 0) < RUNS, entry.outcomes


@settings(max_examples=20, deadline=None, derandomize=True)
@given(number=st.integers(0, 1 << 60))
def test_an_input_follows_from_its_number(number: int) -> None:
    outcomes = []
    for _ in range(2):
        entry = Entry(ENTRIES["pcm"], Path())
        entry.run(number)
        outcomes.append(entry.outcomes)
    assert outcomes[0] == outcomes[1]
