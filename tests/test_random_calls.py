"""A small sample of what tools/random_calls.py runs by the thousand."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import DATA_FOLDER, EvalItem
from fuzzing.tiny import write_tiny_voxtral
from random_calls import check_sequence

import voxfast

FIRST = 10**9


@pytest.mark.parametrize(("name", "runs"), [("tiny", 60), ("voxtral-numbers", 6)])
def test_words_follow_from_what_was_heard(
    name: str, runs: int, eval_items: list[EvalItem], tmp_path: Path
) -> None:
    source = write_tiny_voxtral(tmp_path / "tiny") if name == "tiny" else name
    audio = np.concatenate([item.audio for item in eval_items[18:24]])
    with voxfast.load(source, dtype=mx.float32) as model:
        assert sum(check_sequence(model, FIRST + i, audio) for i in range(runs)) > runs // 6


def test_qwen3_asr_keeps_its_promises_whatever_is_called(eval_items: list[EvalItem]) -> None:
    audio = np.concatenate([item.audio for item in eval_items[18:24]])
    with voxfast.load(DATA_FOLDER / "qwen3-asr-numbers", dtype=mx.float32) as model:
        words = sum(check_sequence(model, FIRST + i, audio, exact=False) for i in range(12))
    assert words > 3
