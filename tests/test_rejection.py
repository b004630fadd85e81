"""benches/rejection.py: what it makes and reads, and how it counts."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import voxfast
from voxfast.timed import Transcript, Word

BENCH = Path(__file__).parent.parent / "benches" / "rejection.py"


class Model:
    """Writes a word for each second that has a sound; an ASR model that is told the language."""

    delays_ms: tuple[int, ...] = ()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def transcribe(self, audio: np.ndarray, *, model: "Model", **options: str) -> Transcript:
        assert model is self
        assert options == {"language": "en"}
        assert audio.dtype == np.float32
        seconds = range(0, len(audio), 16000)
        words = [Word(" Two", 0, 1) for at in seconds if np.abs(audio[at : at + 16000]).max() > 0.1]
        return Transcript(tuple(words), len(audio) / 16000, "fake", "en")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(BENCH))


def write_pool(folder: Path, bench: dict[str, Any]) -> None:
    """Three phrases: of 1 s, 2 s and 3 s."""
    from train.pool import write_shard
    from train.speech import Phrase

    folder.mkdir()
    phrases = [Phrase(np.full(16000 * n, 0.2, np.float32), [], "a voice") for n in (1, 2, 3)]
    shard = write_shard(folder, 0, phrases)
    (folder / bench["MANIFEST"]).write_text(json.dumps({"shards": [shard]}))


def test_table_and_json(
    bench: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pool(tmp_path / "pool", bench)
    nested = tmp_path / "files" / "speaker"
    nested.mkdir(parents=True)
    soundfile.write(nested / "a.flac", np.full(8000, 0.2), 8000)
    (tmp_path / "files" / "a.txt").write_text("no audio")
    model = Model()
    monkeypatch.setattr(voxfast, "load", lambda name: model)
    monkeypatch.setattr(voxfast, "transcribe", model.transcribe)
    monkeypatch.chdir(tmp_path)
    options = ["--model", "one", "folder/two", "--seconds", "3", "--json", "out.json"]
    monkeypatch.setattr(sys, "argv", ["rejection.py", "pool", "files", *options])
    runpy.run_path(str(BENCH), run_name="__main__")
    table = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert ["pool", "0.1", "6", "60.0", "6", "60.0"] in table
    assert ["files", "0.0", "1", "60.0", "1", "60.0"] in table
    assert ["silence", "0.1", "0", "0.0", "0", "0.0"] in table
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document["models"]) == ["one", "folder/two"]
    rows = {row["source"]: row for row in document["models"]["one"]}
    assert rows["pool"]["written"] == {"two": 6}
    assert len(rows) == 2 + 1 + 7 * 3
    noise = [row for row in rows.values() if row["is_noise"]]
    words = sum(row["words"] for row in noise)
    figures = [str(words), f"{60 * words / sum(row['seconds'] for row in noise):.1f}"]
    assert ["all noise", "1.1", *figures, *figures] in table
    assert rows["white, -15 dBFS"]["words_per_minute"] == 60
    assert rows["white, -50 dBFS"]["words"] == 0


@pytest.mark.parametrize("minutes", [0.01, 0.05])
def test_a_part_of_a_folder(bench: dict[str, Any], tmp_path: Path, minutes: float) -> None:
    write_pool(tmp_path / "pool", bench)
    part: Callable[..., Any] = bench["some"]
    chosen = part(bench["read_folder"](tmp_path / "pool"), minutes, 8).streams
    lengths = [len(read()) / 16000 for read in chosen]
    assert sum(lengths[:-1]) < 60 * minutes <= sum(lengths)
    assert sorted(set(lengths)) == sorted(lengths)  # none twice


def test_a_folder_without_audio_is_said(bench: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no pool"):
        bench["read_folder"](tmp_path)


@pytest.mark.parametrize("level_db", [-50, -30, -15])
def test_levels_of_noise(bench: dict[str, Any], level_db: int) -> None:
    for kind in bench["KINDS"]:
        audio = bench["make_noise"](kind, level_db, 4, 8)
        assert audio.shape == (64000,)
        assert audio.dtype == np.float32
        audible = audio[np.abs(audio) > 0.01 * np.abs(audio).max()]
        found_db = 10 * np.log10((audible.astype(float) ** 2).mean())
        assert abs(found_db - level_db) < 0.5, kind
        again = bench["make_noise"](kind, level_db, 4, 8)
        assert (audio == again).all(), kind
