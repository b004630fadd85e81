"""The command on the embedded model: what a user sees in the first minute."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxfast import cli
from voxfast.integrations import wlk_command

EXAMPLES = Path(__file__).parent.parent / "examples" / "audio"
SAID = "turn up and open window"


def test_words_of_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(EXAMPLES / "command.flac")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SAID}\n"
    assert "71 English words" in err


def test_json_of_a_stereo_file_at_another_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soxr

    samples, rate = soundfile.read(EXAMPLES / "command.flac", dtype="float32")
    samples = soxr.resample(samples, rate, 44100)
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.stack([samples, samples], axis=1), 44100)
    assert cli.main(["transcribe", str(path), "--format", "json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == SAID
    ends = [word["end"] for word in result["words"]]
    assert ends == sorted(ends)


def test_a_pipe_and_the_module() -> None:
    samples, _ = soundfile.read(EXAMPLES / "command.flac", dtype="int16")
    done = subprocess.run(
        [sys.executable, "-m", "voxfast", "transcribe", "-", "-q", "--raw-rate", "16000"],
        input=samples.tobytes(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == f"{SAID}\n"
    assert done.stderr == b""


def test_convert_then_transcribe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "small"
    assert cli.main(["convert", "voxtral-numbers", str(folder), "--bits", "8", "-q"]) == 0
    assert "MB" in capsys.readouterr().out
    example = str(EXAMPLES / "command.flac")
    assert cli.main(["transcribe", example, "--model", str(folder), "--dtype", "float32"]) == 0
    assert capsys.readouterr().out == f"{SAID}\n"


def test_doctor_finds_all_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "everything works" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--delay-ms", "100"], 2, "240, 320, 480"),
        (["--language", "de"], 2, "language='de'"),
        (["--model", "no-such-model"], 1, "no-such-model"),
    ],
)
def test_options_that_cannot_be(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["transcribe", str(EXAMPLES / "command.flac"), *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_broken_pair_is_an_import_error_that_helps() -> None:
    code = (
        "import mlx.core as mx; mx.__version__ = '0.1.2'\n"
        "try:\n from voxfast import load\nexcept ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs MLX 0.32.4" in done.stdout
    assert "found MLX 0.1.2" in done.stdout
    assert "pip install" in done.stdout


def test_the_server_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "whisperlivekit", None)
    monkeypatch.delitem(sys.modules, "voxfast.integrations.whisperlivekit", raising=False)
    assert wlk_command.main(["--model", "voxtral-numbers"]) == 1
    assert 'pip install "voxfast[whisperlivekit]"' in capsys.readouterr().err


def test_import_needs_no_framework() -> None:
    code = "import voxfast, sys; voxfast.load; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
