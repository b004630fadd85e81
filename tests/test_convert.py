"""Converting checkpoints: little memory, and nothing half done that looks whole."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from fuzzing.tiny import write_tiny_voxtral
from mlx.utils import tree_flatten

from voxfast import cli
from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import load_tensors, weight_files
from voxfast.models.voxtral.convert import convert
from voxfast.models.voxtral.weights import load_voxtral


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_voxtral(tmp_path / "checkpoint")


@pytest.mark.parametrize("bits", [None, 4])
def test_one_tensor_at_a_time_is_in_memory(
    voxtral_folder: Path, tmp_path: Path, bits: int | None
) -> None:
    tensors = load_tensors(weight_files(voxtral_folder))
    whole, largest = (count(x.nbytes for x in tensors.values()) for count in (sum, max))
    del tensors
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    convert(voxtral_folder, tmp_path / "converted", bits=bits)
    assert mx.get_active_memory() - before < largest
    # The weight as it is read, turned or packed, and as it is written.
    assert mx.get_peak_memory() - before < 3 * largest < whole / 3


def test_types_are_kept_and_what_is_written_is_what_was_read(
    voxtral_folder: Path, tmp_path: Path
) -> None:
    converted = load_voxtral(convert(voxtral_folder, tmp_path / "plain", bits=None))
    expected = dict(tree_flatten(load_voxtral(voxtral_folder).parameters()))
    for name, tensor in tree_flatten(converted.parameters()):
        assert tensor.dtype == expected[name].dtype
        assert mx.array_equal(tensor, expected[name])


def test_progress_counts_bytes(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = convert(folder, tmp_path / "converted", bits=None, shard_bytes=4096,
                     progress=lambda *args: seen.append(args))  # fmt: skip
    done = [bytes_done for bytes_done, _ in seen]
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert done == sorted(done)
    assert {total for _, total in seen} == {done[-1]} == {index["metadata"]["total_size"]}
    assert len(seen) == len(index["weight_map"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_conversion_leaves_nothing(
    folder: Path, tmp_path: Path, error: BaseException
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise error

    expected = error if isinstance(error, type) else type(error)
    with pytest.raises(expected):
        convert(folder, tmp_path / "converted", bits=None, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_what_a_killed_conversion_leaves_is_no_checkpoint(
    folder: Path, tmp_path: Path, part: float
) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from voxfast.models.voxtral.convert import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), bits=None, progress=lambda done, total:\n"
        "        os._exit(7) if done >= total * float(sys.argv[3]) else None)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "converted"), str(part)]
    assert subprocess.run(command, check=False).returncode == 7
    assert not (tmp_path / "converted").exists()
    (left,) = (path.parent for path in tmp_path.rglob("*.safetensors") if path.parent != folder)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_voxtral(left)


def test_the_command_shows_progress_on_a_terminal_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["convert", str(folder), "--bits", "none"]
    assert cli.main([*command, str(tmp_path / "a")]) == 0
    err = capsys.readouterr().err
    assert err == f"voxfast: converting {folder}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main([*command, str(tmp_path / "b")]) == 0
    assert "kB" in capsys.readouterr().err


def test_the_command_names_the_family_that_it_does_not_convert(
    qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", str(qwen_folder), str(tmp_path / "new")]) == 2
    message = capsys.readouterr().err
    assert "is a Qwen3-ASR checkpoint, and only Voxtral's are converted" in message
    assert "qwen3-asr-0.6b-4bit" in message
    assert not (tmp_path / "new").exists()
