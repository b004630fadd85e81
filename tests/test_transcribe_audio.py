"""Audio and the command: containers on stdin, channels, what is said of either."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from command_line import ENVIRONMENT, WORDS, Stdin, command
from encoded import encoded

import voxfast
from voxfast import cli
from voxfast.errors import InvalidAudioError


def test_containers_on_stdin(model, monkeypatch, capsys):
    for name in ("m4a", "webm", "mp3", "flac"):
        monkeypatch.setattr(sys, "stdin", Stdin(encoded(name, 1.6)))
        assert cli.main(["transcribe", "-", "-q"]) == 0
        out, err = capsys.readouterr()
        assert out == WORDS + "\n"
        assert not err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE html><html>404</html>", "stdin is an HTML page, not audio"),
        (b"PK\x03\x04" + bytes(60), "stdin is a zip archive"),
        (b"\x1f\x8b\x08" + bytes(60), "stdin is a gzip file"),
    ],
)
def test_what_is_no_audio_on_stdin_fails(model, monkeypatch, capsys, data, said):
    monkeypatch.setattr(sys, "stdin", Stdin(data))
    assert cli.main(["transcribe", "-", "-q"]) == 1
    assert said in capsys.readouterr().err


def test_notes_on_stderr():
    """Of raw PCM that nobody asked for, and of samples that were replaced."""
    samples = np.full(32000, 0.01, np.float32)
    options = {"capture_output": True, "env": ENVIRONMENT}
    raw = (samples * 32768).astype("<i2").tobytes()
    result = subprocess.run(command("transcribe", "-"), input=raw, **options)
    assert result.returncode == 0
    assert b"taken as raw PCM" in result.stderr
    result = subprocess.run(command("transcribe", "-", "--raw-rate", "16000"), input=raw, **options)
    assert b"raw PCM" not in result.stderr


def test_a_few_bad_samples_are_reported(model, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    samples = np.full(32000, 0.01, np.float32)
    samples[500] = np.nan
    soundfile.write("a.wav", samples, 16000, subtype="FLOAT")
    assert cli.main(["transcribe", "a.wav"]) == 0
    assert "1 sample is no audio" in caplog.text
    samples[500:2000] = np.nan
    soundfile.write("a.wav", samples, 16000, subtype="FLOAT")
    assert cli.main(["transcribe", "a.wav"]) == 1


def test_each_channel_has_a_transcript(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.full((25600, 2), [0.01, 0.02]), 16000)
    for format_ in ("txt", "json", "jsonl", "srt", "vtt", "tsv"):
        assert cli.main(["transcribe", "a.wav", "--channel", "each", "-o", f"a.{format_}"]) == 0
        for channel in (1, 2):
            assert "w1" in (tmp_path / f"a.{channel}.{format_}").read_text()
    assert len(model.sessions) == 12
    assert {sum(session.chunks) for session in model.sessions} == {25600}
    capsys.readouterr()
    assert cli.main(["transcribe", "a.wav", "--channel", "each", "-q"]) == 0
    assert capsys.readouterr().out.count("w3") == 2


def test_each_channel_does_not_replace_the_file_that_is_there(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.full((25600, 2), [0.01, 0.02]), 16000)
    (tmp_path / "a.txt").write_text("another transcript")  # a name that no channel takes
    options = ["--channel", "each", "-o", "a.txt", "--no-overwrite"]
    assert cli.main(["transcribe", "a.wav", *options]) == 0
    before = (tmp_path / "a.2.txt").read_text()
    assert cli.main(["transcribe", "a.wav", *options]) == 1
    assert "a.1.txt" in capsys.readouterr().err
    assert (tmp_path / "a.2.txt").read_text() == before


def test_one_channel(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.full((25600, 2), 0.01), 16000)
    assert cli.main(["transcribe", "a.wav", "--channel", "2", "-q"]) == 0
    assert capsys.readouterr().out == WORDS + "\n"
    assert cli.main(["transcribe", "a.wav", "--channel", "3", "-q"]) == 1
    assert "has 2 channels; there is no channel 3" in capsys.readouterr().err
    for wrong in ("0", "-1", "left", "1.5", ""):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["transcribe", "a.wav", f"--channel={wrong}"])
        assert exit_.value.code == 2


def test_raw_channels(model, monkeypatch, capsys):
    stereo = np.full((25600, 2), 300, ">i2")
    monkeypatch.setattr(sys, "stdin", Stdin(stereo.tobytes()))
    options = ["--raw-format", "s16be", "--raw-channels", "2", "-q"]
    assert cli.main(["transcribe", "-", *options]) == 0
    assert capsys.readouterr().out == WORDS + "\n"
    assert sum(model.sessions[-1].chunks) == 25600


def test_a_transcript_is_of_one_channel(tmp_path):
    path = tmp_path / "a.flac"
    speech, rate = soundfile.read("examples/audio/command.flac")
    soundfile.write(path, np.stack([0 * speech, speech], axis=1), rate)
    with voxfast.load() as model:
        assert "window" in voxfast.transcribe(path, model=model, channel=2).text
        assert not voxfast.transcribe(path, model=model, channel=1).text
        with pytest.raises(InvalidAudioError, match="one channel"):
            voxfast.transcribe(path, model=model, channel="each")
