"""``voxfast doctor --speed``, with the small checkpoints in the place of the large ones."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from voxfast import cli, ops
from voxfast.bench import op_parity, speed
from voxfast.cli import speed as command

pytestmark = pytest.mark.usefixtures("on_the_cpu")
ARGUMENTS = ["doctor", "--speed", "--device", "cpu", "--seconds", "1"]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(speed, "LEAST_STEPS", 1)


def test_both_models_are_timed_and_the_numbers_are_json(qwen_folder, tmp_path, capsys):
    path = tmp_path / "speed.json"
    models = ["--model", "voxtral-numbers", "--model", str(qwen_folder)]
    assert cli.main([*ARGUMENTS, *models, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "agree with float64" in out
    assert "a position (80 ms of audio) takes" in out
    assert "a token takes" in out
    report = json.loads(path.read_text("utf-8"))
    found = report["devices"]["cpu"]
    assert report["mlx"] == "0.32.4"
    assert found["failed"] == []
    voxtral, qwen = found["models"].values()
    assert voxtral["real_time_factor"] == pytest.approx(voxtral["position_ms"] / 80, rel=0.1)
    assert 0 < qwen["token_ms"] < qwen["second_ms"]


def test_json_on_stdout_is_alone_there(capsys):
    assert cli.main([*ARGUMENTS, "--model", "voxtral-numbers", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert "voxtral-numbers" in json.loads(out)["devices"]["cpu"]["models"]
    assert "agree with float64" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "3"], "--seconds is for --speed"),
        (["--json", "x.json"], "--json is for --speed"),
        (["--speed", "--json", "nowhere/x.json"], "no such folder"),
        (["--speed", "--measure", "voxtral-5b"], "invalid choice"),
        (["--speed", "--seconds", "0"], "0 is not 1 to 3600"),
        (["--speed", "--device", "tpu"], "invalid choice"),
    ],
)
def test_nonsense_is_wrong_usage(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["doctor", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_said_before_anything_is_measured(capsys):
    assert cli.main([*ARGUMENTS, "--model", "no-such-model"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no-such-model" in err


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is one")
def test_a_gpu_that_is_not_there(capsys):
    assert cli.main(["doctor", "--speed", "--device", "gpu"]) == 1
    assert "finds no GPU" in capsys.readouterr().out


def test_too_little_memory_is_said(capsys, monkeypatch):
    monkeypatch.setattr(command, "_memory", lambda device: 1.5)
    assert cli.main([*ARGUMENTS, "--measure", "voxtral-4b-4bit"]) == 0
    assert "it needs 3.5 GB, and there are 1.5 GB" in capsys.readouterr().out


def test_a_wrong_op_is_found(capsys, monkeypatch):
    gelu = ops.gelu
    monkeypatch.setattr(ops, "gelu", lambda x: gelu(x) * 1.01)
    arguments = [*ARGUMENTS, "--model", "voxtral-numbers"]
    assert cli.main(arguments) == 1
    assert "WRONG, by float64: gelu" in capsys.readouterr().out


def test_an_op_without_a_number_is_found(capsys, monkeypatch, tmp_path):
    path = tmp_path / "speed.json"
    monkeypatch.setattr(ops, "gelu", lambda x: x * float("nan"))
    arguments = [*ARGUMENTS, "--model", "voxtral-numbers", "--json", str(path)]
    assert cli.main(arguments) == 1
    assert "WRONG, by float64: gelu nan" in capsys.readouterr().out
    assert "NaN" not in path.read_text("utf-8")


@pytest.mark.parametrize("native", [True, False])
def test_ops_agree_with_float64(native):
    with ops.use_native(native):
        errors = op_parity.op_errors()
    assert set(ops.__all__) >= set(errors)
    assert max(errors.values()) < command.LIMITS["cpu"]


@pytest.mark.parametrize("model", ["voxtral", "qwen"])
def test_tokens_that_differ_are_found(model, voxtral_folder, qwen_folder, monkeypatch):
    folder: Path = voxtral_folder if model == "voxtral" else qwen_folder
    assert speed.same_tokens(folder, mx.Device(mx.cpu), count=5) == ""
    calls = 0
    noise = speed.noise

    def other_noise(seconds: float) -> np.ndarray:
        nonlocal calls
        calls += 1
        return noise(seconds) * (1 if calls == 1 else 0)

    monkeypatch.setattr(speed, "noise", other_noise)
    assert speed.same_tokens(folder, mx.Device(mx.cpu), count=5).startswith("step 0: token")
