"""Where transcripts go, and what of them survives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import ENVIRONMENT, WORDS, command, start, write
from fakes import FakeSession, signal_after

from voxfast import cli, formats
from voxfast.cli.output import Output
from voxfast.timed import Transcript, Word

LIVE = ("txt", "jsonl", "tsv", "srt", "vtt", "ass", "lrc")


def test_output_file(model, talk, tmp_path, capsys):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("old.txt")
    assert cli.main(["transcribe", talk, "-o", "link.txt"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "old.txt").read_text() == WORDS + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "old.txt", "talk.wav"]


def test_output_folder(model, talk, tmp_path):
    other = write(tmp_path / "other.flac", 0.2)
    assert cli.main(["transcribe", talk, other, "-o", "new/sub", "-f", "srt"]) == 0
    assert sorted(path.name for path in (tmp_path / "new/sub").iterdir()) == [
        "other.srt",
        "talk.srt",
    ]
    assert cli.main(["transcribe", talk, "-o", "new"]) == 0
    assert (tmp_path / "new/talk.txt").read_text() == WORDS + "\n"


def test_device_is_written_to_and_not_replaced(model, talk, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli.main(["transcribe", talk, "-o", "pipe", "-q"]) == 0
        assert os.read(reader, 100) == f"{WORDS}\n".encode()
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("options", "begin"),
    [
        (["-o", "out.srt"], "1\n00:00"),
        (["-o", "out.VTT"], "WEBVTT"),
        (["-o", "out.json"], "{"),
        (["-o", "out.txt"], "w1 w2"),
        (["-o", "out.srt", "-f", "text"], "w1 w2"),
        (["-o", "out"], "w1 w2"),
        (["-o", "out.ass"], "[Script Info]"),
        (["-o", "out.lrc"], "[00:00.00]w1 w2"),
        (["-o", "out.docx", "-f", "text"], "w1 w2"),
    ],
)
def test_the_suffix_of_the_output_chooses_the_format(model, talk, tmp_path, options, begin):
    assert cli.main(["transcribe", talk, *options]) == 0
    assert (tmp_path / options[1]).read_text().startswith(begin)


def test_unwritable_output_is_known_before_the_work(model, talk, capsys):
    assert cli.main(["transcribe", talk, "-o", "no/such/folder.txt"]) == 1
    assert "voxfast: error: no/such/folder.txt: No such file" in capsys.readouterr().err
    assert model.loads == []


# While the words come


@pytest.mark.parametrize("suffix", LIVE)
@pytest.mark.parametrize("old", [None, "", "old"])
def test_words_are_on_disk_while_they_come(model, tmp_path, suffix, old):
    target = tmp_path / f"talk.{suffix}"
    if old is not None:
        target.write_text(old)
    live = tmp_path / f"talk.{suffix}.voxfast.part" if old else target
    seen: list[str] = []

    def look(session: FakeSession) -> None:
        if live.exists():
            seen.append(live.read_text())
            assert not old or target.read_text() == old

    model.on_feed = look
    # Captions are at most 7 s, so that of the first 7 s is complete after 8 s.
    assert cli.main(["transcribe", write(tmp_path / "t.wav", 9), "-o", target.name]) == 0
    whole = target.read_text()
    assert all(whole.startswith(text) for text in seen)
    assert "w12" in seen[-1]
    assert "end" in whole
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["t.wav", target.name])


@pytest.mark.parametrize(("suffix", "old"), [("txt", None), ("json", "old")])
def test_the_file_of_a_run_that_was_killed(tmp_path, suffix, old):
    """kill -9 leaves what was written, and what was there before."""
    write(tmp_path / "talk.wav", 600)
    target = tmp_path / f"talk.{suffix}"
    if old:
        target.write_text(old)
    live = tmp_path / f"talk.{suffix}.voxfast.part" if old else target
    arguments = ["transcribe", "talk.wav", "-q", "-o", target.name]
    process = start(tmp_path, *arguments, feed_seconds=0.01)
    while not live.exists() or live.stat().st_size < 300:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    text = live.read_text()
    if old:
        assert target.read_text() == old
        text = "".join(json.loads(line)["text"] for line in text.splitlines()).lstrip()
    assert text.startswith("w1 w2 w3")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", [*LIVE, "json"])
@pytest.mark.parametrize("old", [None, "old"])
def test_the_file_of_a_run_that_was_stopped(
    model, talk, tmp_path, monkeypatch, capsys, number, suffix, old
):
    target = tmp_path / f"talk.{suffix}"
    if old:
        target.write_text(old)
    model.on_feed = signal_after(1.2, number)
    assert cli.main(["transcribe", talk, "-o", target.name]) == 128 + number
    (part,) = tmp_path.glob("*.part") if old else [target]
    text, err = part.read_text(), capsys.readouterr().err
    assert "w2" in text
    assert "end" in text  # the last words, too
    assert "w3" not in text
    if suffix == "json":
        assert json.loads(text)["complete"] is False
    if old:
        assert target.read_text() == old
        assert f"{target.name} stays as it was; the new text is in {part}" in err
    else:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([talk, target.name])
        assert f"{target.name} has what was transcribed until then" in err
    assert not model.is_open


def test_a_damaged_recording_does_not_replace_a_file(model, talk, tmp_path, capsys):
    path = tmp_path / talk
    path.write_bytes(path.read_bytes()[: 44 + 2 * 19200])
    (tmp_path / "out.json").write_text("old")
    assert cli.main(["transcribe", talk, "-o", "out.json"]) == 1
    assert (tmp_path / "out.json").read_text() == "old"
    part = tmp_path / "out.json.voxfast-2.part"
    assert json.loads(part.read_text())["text"] == "w1 w2 end"
    assert str(part) in capsys.readouterr().err


def test_an_option_that_the_model_lacks_leaves_no_file(model, talk, tmp_path):
    for old in None, "old":
        if old:
            (tmp_path / "out.txt").write_text(old)
        assert cli.main(["transcribe", talk, "-o", "out.txt", "--delay-ms", "7"]) == 2
        assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.txt"] * bool(old)


# What is refused


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("", 2, "--output is empty"),
        ("out.docx", 2, "out.docx: .docx is the suffix of no format; use one of .txt, .json"),
        ("old.docx", 2, ".docx is the suffix of no format"),
        ("no/such/out.txt", 1, "no/such/out.txt: No such file, and no folder no/such"),
        ("talk.wav/out.txt", 1, "talk.wav/out.txt: Not a directory"),
        ("a" * 256 + ".txt", 1, "File name too long"),
    ],
)
def test_outputs_that_are_refused_before_a_model_is_loaded(
    model, talk, tmp_path, capsys, output, code, message
):
    (tmp_path / "old.docx").touch()
    before = sorted(tmp_path.iterdir())
    assert cli.main(["transcribe", talk, "-o", output]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert model.loads == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_in_the_place_of_a_file(model, talk, tmp_path, capsys):
    (tmp_path / "out" / "talk.txt").mkdir(parents=True)
    assert cli.main(["transcribe", talk, "-o", "out"]) == 1
    assert "out/talk.txt: is a folder" in capsys.readouterr().err
    assert model.loads == []


@pytest.mark.parametrize("output", ["out", "out/", "out.d", "out.srt/"])
def test_a_folder_takes_a_file_per_input(model, talk, tmp_path, output):
    if not output.endswith("/"):
        (tmp_path / output).mkdir()
    assert cli.main(["transcribe", talk, "-o", output, "-f", "srt"]) == 0
    assert [p.name for p in (tmp_path / output).iterdir()] == ["talk.srt"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_two_names_of_one_file(model, talk, tmp_path, capsys, link):
    write(tmp_path / "other.wav")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "talk.txt").write_text("old")
    link(tmp_path / "out" / "other.txt", tmp_path / "out" / "talk.txt")
    assert cli.main(["transcribe", talk, "other.wav", "-o", "out"]) == 2
    assert "would both be transcribed to out/other.txt" in capsys.readouterr().err
    assert (tmp_path / "out" / "talk.txt").read_text() == "old"
    assert model.loads == []


def test_an_output_that_is_a_hard_link_to_its_input(model, talk, tmp_path, capsys):
    (tmp_path / "out.txt").hardlink_to(tmp_path / talk)
    assert cli.main(["transcribe", talk, "-o", "out.txt"]) == 2
    assert "overwrite the input" in capsys.readouterr().err


def test_no_overwrite(model, talk, tmp_path, capsys):
    other = write(tmp_path / "other.wav")
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / "talk.txt"
    old.write_text("old")
    (tmp_path / "out" / "other.txt").touch()  # nothing is lost
    assert cli.main(["transcribe", talk, other, "-o", "out", "--no-overwrite"]) == 1
    assert (tmp_path / "out" / "other.txt").read_text() == WORDS + "\n"
    assert old.read_text() == "old"
    assert "error: out/talk.txt: is there already (--no-overwrite)" in capsys.readouterr().err
    assert len(model.loads) == 1
    assert cli.main(["transcribe", talk, other, "-o", "out", "--no-overwrite"]) == 1
    assert len(model.loads) == 1
    assert cli.main(["transcribe", talk, "-o", "new.txt", "--no-overwrite"]) == 0
    assert (tmp_path / "new.txt").read_text() == WORDS + "\n"


# Stdout by other names


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1"])
def test_stdout_by_name(tmp_path, output):
    write(tmp_path / "talk.wav")
    log = tmp_path / "log"
    log.write_text("log\n")
    with log.open("a") as stdout:
        done = subprocess.run(
            command("transcribe", "-q", "talk.wav", "talk.wav", "-o", output),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=stdout,
        )
    assert done.returncode == 0
    assert log.read_text() == f"log\n{WORDS}\n{WORDS}\n"


# Encodings


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("format_", formats.FORMATS)
def test_what_machines_read_is_utf8(model, talk, tmp_path, monkeypatch, encoding, format_):
    model.text = " naïve日本{}"
    with (tmp_path / "out").open("w", encoding=encoding) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["transcribe", "-q", talk, "-f", format_]) == 0
    data = (tmp_path / "out").read_bytes()
    if format_ == "text":
        assert rb"\u65e5\u672c1" in data
    else:
        assert "naïve日本1" in data.decode()


def test_a_terminal_of_ascii(tmp_path):
    write(tmp_path / "日本.wav")
    done = subprocess.run(
        command("transcribe", "-q", "日本.wav", "-f", "json"),
        cwd=tmp_path,
        env={**ENVIRONMENT, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "日本.wav" in json.loads(done.stdout.decode())["source"]


@pytest.mark.parametrize("format_", formats.FORMATS)
@pytest.mark.parametrize("place", ["-", "out"])
def test_lone_surrogates(model, tmp_path, capfdbinary, format_, place):
    name = os.fsdecode(b"caf\xe9.wav")
    os.rename(tmp_path / write(tmp_path / "talk.wav"), tmp_path / name)  # noqa: PTH104
    model.text = " a\udc80{}"
    assert cli.main(["transcribe", "-q", name, "-f", format_, "-o", place]) == 0
    data = (tmp_path / "out").read_bytes() if place == "out" else capfdbinary.readouterr().out
    assert "a\ufffd1" in data.decode()
    if format_ == "json":
        assert json.loads(data)["source"] == "caf\ufffd.wav"


# Channels


def channels(*outputs: Output) -> None:
    """Say something to both, in turn."""
    words = [[Word(f" {name}{i}.", i, i + 0.5) for i in range(3)] for name in "AB"]
    for i in range(3):
        for output, spoken in zip(outputs, words, strict=True):
            output.add(spoken[i : i + 1])
    for output, spoken in zip(outputs, words, strict=True):
        output.close(Transcript(tuple(spoken), 3), complete=True)


def test_channels_of_text_on_stdout(capsys):
    channels(*(Output("text", None, "talk", channel=i) for i in (1, 2)))
    out = capsys.readouterr().out
    assert sorted(out.splitlines()) == [
        f"[{i}] {name}{n}." for i, name in [(1, "A"), (2, "B")] for n in range(3)
    ]
    # Lines of both come by turns: none waits for the end.
    assert [line[:3] for line in out.splitlines()] == ["[1]", "[2]"] * 3


def test_channels_of_json_lines_on_stdout(capsys):
    channels(*(Output("jsonl", None, "talk", channel=i) for i in (1, 2)))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["channel"] for line in lines] == [1, 2] * 3


@pytest.mark.parametrize("format_", ["json", "srt", "vtt", "tsv", "ass", "lrc"])
def test_documents_of_channels_are_not_mixed(capsys, format_):
    channels(*(Output(format_, None, "talk", channel=i) for i in (1, 2)))
    out = capsys.readouterr().out
    assert max(out.index(f"A{i}") for i in range(3)) < min(out.index(f"B{i}") for i in range(3))
    alone = Output(format_, None, "talk", channel=1)
    alone.close(Transcript(tuple(Word(f" A{i}.", i, i + 0.5) for i in range(3)), 3), complete=True)
    assert out.startswith(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("format_", "first"),
    [
        ("text", "A0.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\n[1] A0.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v Channel 1>A0.\n"),
        ("tsv", "channel\tstart\tend\tprobability\ttext\n1\t0.000\t0.500\t\t A0.\n"),
        ("jsonl", '{"channel": 1, "text": " A0."'),
        ("lrc", "[00:00.00] [1] A0.\n"),
    ],
)
def test_files_of_channels(tmp_path, format_, first):
    path = tmp_path / "talk.xyz"
    channels(*(Output(format_, path, "talk", channel=i) for i in (1, 2)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["talk.1.xyz", "talk.2.xyz"]
    assert (tmp_path / "talk.1.xyz").read_text().startswith(first)
    assert "B" in (tmp_path / "talk.2.xyz").read_text()


def test_channels_have_sessions_of_their_own(model, tmp_path, capsys):
    import argparse

    from voxfast.cli.run import run_session

    args = argparse.Namespace(
        delay_ms=None,
        language=None,
        prompt=None,
        vocabulary=(),
        endpoint_ms=None,
        skip_silence=False,
    )
    outputs = [Output("json", tmp_path / "talk.json", "t", channel=i) for i in (1, 2)]
    blocks = iter([np.zeros((8000, 2), np.float32), np.zeros((4000, 2), np.float32)])
    run_session(model, blocks, outputs, args)
    assert [session.chunks for session in model.sessions] == [[8000, 4000]] * 2
    for i in 1, 2:
        document = json.loads((tmp_path / f"talk.{i}.json").read_text())
        assert list(document)[2:4] == ["source", "channel"]
        assert (document["channel"], document["text"]) == (i, "w1 end")


@pytest.mark.parametrize("shared", [True, False])
def test_the_last_line_of_a_silent_channel_is_shown(model, capsys, shared):
    """One speaker says a word and listens; it is on stdout while the other one speaks."""
    import argparse

    from voxfast.cli.run import run_session

    class Brief(FakeSession):
        def feed(self, samples):
            return [word for word in super().feed(samples) if word.text == " w1"]

    sessions = [Brief(model, {}), FakeSession(model, {})]
    model.session = lambda **options: sessions.pop(0)
    shown = {}

    def blocks():
        for i in range(60):
            shown[i] = capsys.readouterr().out
            yield np.zeros((1600, 2), np.float32) if shared else np.zeros(1600, np.float32)

    args = argparse.Namespace(
        delay_ms=None,
        language=None,
        prompt=None,
        vocabulary=(),
        endpoint_ms=None,
        skip_silence=False,
    )
    channels = (1, 2) if shared else (None,)
    run_session(model, blocks(), [Output("text", None, "t", channel=i) for i in channels], args)
    shown["end"] = capsys.readouterr().out
    at = next(i for i, text in shown.items() if "w1" in text)
    if shared:
        # The word ends at 0.5 s; a pause is certain 2.5 s later.
        assert shown[at] == "[1] w1\n"
        assert at == 31
        assert "".join(shown.values()).count("[1]") == 2
    else:
        assert at == 5
        assert "".join(shown.values()) == "w1\nend\n"
