"""A small sample of what tools/random_calls.py runs by the thousand."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import QWEN_FOLDER, EvalItem
from fuzzing.tiny import write_tiny_qwen3_asr, write_tiny_voxtral
from random_calls import check_sequence

import voxfast

FIRST = 10**9


MODELS = {
    "tiny": write_tiny_voxtral,
    "tiny-qwen": write_tiny_qwen3_asr,
    "voxtral-numbers": lambda _: "voxtral-numbers",
    "qwen3-asr-numbers": lambda _: QWEN_FOLDER,
}


@pytest.mark.parametrize(
    ("name", "runs"),
    [("tiny", 60), ("tiny-qwen", 60), ("voxtral-numbers", 12), ("qwen3-asr-numbers", 12)],
)
def test_words_follow_from_what_was_heard(
    name: str, runs: int, eval_items: list[EvalItem], tmp_path: Path
) -> None:
    source = MODELS[name](tmp_path / "tiny")
    audio = np.concatenate([item.audio for item in eval_items[18:30]])
    with voxfast.load(source, dtype=mx.float32) as model:
        assert sum(check_sequence(model, FIRST + i, audio) for i in range(runs)) > runs // 6
