"""benches/noise.py: what it makes, and how it counts."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import QWEN_FOLDER

from voxfast.timed import Word

BENCHES = Path(__file__).parent.parent / "benches"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [str(BENCHES), *sys.path])
    return runpy.run_path(str(BENCHES / "noise.py"))


class Loud:
    """A session that writes a word for each block with a sample above 0.9."""

    def __init__(self) -> None:
        self.heard = 0.0

    def __enter__(self) -> "Loud":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def feed(self, samples: np.ndarray) -> list[Word]:
        self.heard += len(samples) / 16000
        return [Word(" Two", self.heard, self.heard)] if samples.max() > 0.9 else []

    def finish(self) -> list[Word]:
        return [Word(" end", self.heard, self.heard)]


def test_the_hour(bench: dict[str, Any]) -> None:
    parts = bench["hour"](37 * 1.5, 8)
    assert len(parts) == 34
    assert sorted({name.partition(",")[0] for name, _ in parts}) == [
        "beeps", "brown", "clicks", "dtmf", "hum", "keyboard", "pink", "rumble", "silence",
        "sines", "tones", "white",
    ]  # fmt: skip
    assert len({len(audio) for _, audio in parts}) == 1
    assert sum(len(audio) for _, audio in parts) == pytest.approx(37 * 1.5 * 16000, rel=1e-3)
    for name, audio in parts:
        assert audio.dtype == np.float32
        assert np.abs(audio).max() <= 1
        if name == "silence":
            assert not audio.any()
        elif name.startswith(("hum", "sines", "white", "brown")):
            level = 10 * np.log10(np.mean(audio.astype(float) ** 2))
            assert level == pytest.approx(float(name.split()[1]), abs=0.7)
    again = dict(bench["hour"](37 * 1.5, 8))
    assert all(np.array_equal(again[name], audio) for name, audio in parts)


def test_words_are_counted_where_they_are_written(bench: dict[str, Any]) -> None:
    options: list[dict[str, Any]] = []

    class Model:
        delays_ms: tuple[int, ...] = ()

        def session(self, **given: Any) -> Loud:
            options.append(given)
            return Loud()

    quiet, loud = np.zeros(32000, np.float32), np.ones(48000, np.float32)
    row = bench["measure"](Model(), [("loud", loud), ("quiet", quiet)], True)
    assert options == [{"skip_silence": True, "language": "en"}]
    assert (row["words"], row["seconds"], row["skip_silence"]) == (4, 5.0, True)
    assert row["written"] == {"loud: two": 3, "quiet: end": 1}


def test_a_checkpoint_that_writes_all_words(bench: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(bench["keeps_all"](str(QWEN_FOLDER), tmp_path))
    before = json.loads((QWEN_FOLDER / "voxfast.json").read_text())
    after = json.loads((folder / "voxfast.json").read_text())
    assert before["least_probability"] > 0
    assert after == before | {"least_probability": 0.0}
