"""The command, around a model that needs no weights."""

import io
import json
import os
import shlex
import subprocess
import sys

import mlx.core as mx
import pytest
from command_line import ENVIRONMENT, WORDS, Stdin, Terminal, command, write
from fakes import FakeSession

import voxfast
from voxfast import cli, hub
from voxfast.errors import ModelNotFoundError
from voxfast.models.vocabulary import DEFAULT_WEIGHT
from voxfast.timed import Word

# Text and files


def test_words_and_newline(model, talk, capsys):
    assert cli.main(["transcribe", talk]) == 0
    out, err = capsys.readouterr()
    assert out == WORDS + "\n"
    assert err == f"voxfast: fake: {model.description}\n"
    assert model.loads == [("voxtral-numbers", None)]
    assert not model.is_open
    assert model.sessions[0].closed
    assert set(model.sessions[0].chunks) == {1280}


def test_words_are_printed_as_they_are_committed(model, talk, monkeypatch):
    written: list[tuple[int, str]] = []

    class Stdout(io.StringIO):
        def write(self, text: str) -> int:
            written.append((len(model.sessions[0].chunks), text))
            return len(text)

    monkeypatch.setattr(sys, "stdout", Stdout())
    assert cli.main(["transcribe", talk, "--quiet"]) == 0
    # 0.5 s end in the 7th chunk of 80 ms, 1 s in the 13th, 1.5 s in the 19th.
    assert written == [(7, "w1"), (13, " w2"), (19, " w3"), (20, " end"), (20, "\n")]


def test_options_reach_the_model(model, talk):
    options = ["--delay-ms", "480", "--language", "de", "--prompt", "Zahlen", "--chunk-ms", "33"]
    options += ["--endpoint-ms", "400", "--skip-silence", "--vocabulary", "Köln,New York"]
    options += ["--kv-bits", "8"]
    assert cli.main(["transcribe", talk, "--model", "a/b", "--dtype", "bfloat16", *options]) == 0
    assert model.loads == [("a/b", mx.bfloat16)]
    assert model.kv_bits == 8
    (session,) = model.sessions
    assert session.options == {
        "delay_ms": 480,
        "language": "de",
        "prompt": "Zahlen",
        "vocabulary": (("Köln", DEFAULT_WEIGHT), ("New York", DEFAULT_WEIGHT)),
        "endpoint_ms": 400,
        "skip_silence": True,
    }
    assert session.chunks[0] == 528
    assert sum(session.chunks) == 25600


def test_a_vocabulary_comes_from_a_file(model, talk, tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# names\n\nKöln\nNew York\t6.5\r\nC#\n", encoding="utf-8")
    assert cli.main(["transcribe", talk, "--vocabulary", str(path)]) == 0
    expected = (("Köln", DEFAULT_WEIGHT), ("New York", 6.5), ("C#", DEFAULT_WEIGHT))
    assert model.sessions[0].options["vocabulary"] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"a\tb\n", "line 1: the weight behind the tab must be a number; got 'b'"),
        (b"a\tnan\n", "above 0 and up to 20; got nan"),
        (b"\xff\xfe", "can't decode"),
        (b"# nothing\n", "has no phrases"),
        (b"\t4\n", "is empty"),
        (b"a\n" * (1 << 22), "may have 4 MiB"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_wrong_usage(
    model, talk, tmp_path, capsys, content, message
):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["transcribe", talk, "--vocabulary", str(path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert model.sessions == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--skip-silence"], ["voxfast: skipped as silence: 0.2 s of 1.6 s"]),
        (["--skip-silence", "-q"], []),
        ([], []),
    ],
)
def test_what_was_skipped_is_told(model, talk, tmp_path, capsys, options, told):
    model.is_demo = False
    assert cli.main(["transcribe", talk, "-o", "talk.json", *options]) == 0
    assert capsys.readouterr().err.splitlines() == told
    document = json.loads((tmp_path / "talk.json").read_text())
    assert document["skipped"] == (0.25 if options else 0)


def test_formats(model, talk, capsys):
    seen = {}
    for name in ("json", "jsonl", "srt", "vtt", "tsv"):
        assert cli.main(["transcribe", talk, "-q", "-f", name, "--language", "en"]) == 0
        seen[name] = capsys.readouterr().out
    document = json.loads(seen["json"])
    assert document["text"] == WORDS
    assert document["complete"] is True
    assert document["source"] == "talk.wav"
    assert document["model"] == "fake"
    assert document["language"] == "en"
    assert document["duration"] == 1.6
    assert [json.loads(line)["text"] for line in seen["jsonl"].splitlines()] == [
        " w1",
        " w2",
        " w3",
        " end",
    ]
    assert seen["srt"] == f"1\n00:00:00,000 --> 00:00:01,600\n{WORDS}\n\n"
    assert seen["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert len(seen["tsv"].splitlines()) == 5


def test_several_files(model, talk, tmp_path, capsys):
    other = write(tmp_path / "other.flac", 0.2)
    assert cli.main(["transcribe", talk, other]) == 0
    out, err = capsys.readouterr()
    assert out == f"{WORDS}\nend\n"
    assert err.splitlines()[1:] == ["== talk.wav ==", "== other.flac =="]
    assert len(model.loads) == 1
    assert cli.main(["transcribe", talk, other, "-f", "jsonl", "-q"]) == 0
    sources = [json.loads(line)["source"] for line in capsys.readouterr().out.splitlines()]
    assert sources == ["talk.wav"] * 4 + ["other.flac"]


def test_failed_file_does_not_stop_the_others(model, talk, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("hello")
    assert cli.main(["transcribe", "none.wav", "text.wav", talk, str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == WORDS + "\n"
    assert "voxfast: error: none.wav does not exist\n" in err
    assert "voxfast: error: text.wav is text, not audio" in err
    assert "is a folder" in err
    assert "Traceback" not in err


def test_nothing_is_loaded_for_files_that_cannot_be_read(model):
    assert cli.main(["transcribe", "none.wav"]) == 1
    assert model.loads == []


def test_truncated_file_is_transcribed_and_reported(model, talk, tmp_path, capsys):
    path = tmp_path / talk
    path.write_bytes(path.read_bytes()[: 44 + 2 * 19200])
    assert cli.main(["transcribe", talk, "-q", "-f", "json", "-o", "out.json"]) == 1
    assert "only 1.20 s of 1.60 s" in capsys.readouterr().err
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["text"] == "w1 w2 end"
    assert document["complete"] is False
    assert document["duration"] == 1.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["talk.wav", "b/talk.mp3", "-o", "out"], "both be transcribed to out/talk.txt"),
        (["talk.wav", "b.wav", "-f", "vtt"], "need --output FOLDER"),
        (["talk.wav", "b.wav", "-o", "one.srt"], "one.srt names a file"),
        (["talk.wav", "b.wav", "-o", "talk.wav"], "cannot be a folder"),
        (["talk.wav", "-o", "talk.wav"], "overwrite the input"),
        (["talk.wav", "talk.txt", "-o", "."], "overwrite the input"),
        (["-", "-"], "only once"),
        (["talk.wav", "--delay-ms", "7"], "multiple of 80"),
        (["talk.wav", "--raw-rate", "8000"], "--raw-rate 8000 is for pipes, and talk.wav is no"),
        (["-", "talk.wav", "--raw-format", "alaw"], "transcribe - --raw-format alaw < talk.wav"),
    ],
)
def test_wrong_usage(model, talk, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    before = (tmp_path / talk).read_bytes()
    assert cli.main(["transcribe", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / talk).read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "docx"],
        ["transcribe", "a.wav", "--chunk-ms", "0"],
        ["transcribe", "a.wav", "--raw-rate", "x"],
        ["nonsense"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_unknown_options_show_the_usage_of_their_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["transcribe", "a.wav", "--nonsense"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: voxfast transcribe ")
    assert err.endswith("voxfast transcribe: error: unrecognized arguments: --nonsense\n")


def test_without_a_command_there_is_help(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "transcribe files, or audio from a pipe" in err


def test_stdin_that_is_a_terminal(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert cli.main(["transcribe", "-"]) == 2
    assert "voxfast listen" in capsys.readouterr().err


# Pipes


def test_raw_pcm_on_stdin(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(bytes(2 * 25600)))
    assert cli.main(["transcribe", "-", "-q"]) == 0
    assert capsys.readouterr().out == WORDS + "\n"
    monkeypatch.setattr(sys, "stdin", Stdin(bytes(4 * 12800)))
    options = ["--raw-rate", "8000", "--raw-format", "f32le"]
    assert cli.main(["transcribe", "-", "-q", *options]) == 0
    assert capsys.readouterr().out == WORDS + "\n"


def test_options_may_stand_between_files(model, talk, tmp_path, capsys):
    other = write(tmp_path / "other.wav")
    assert cli.main(["transcribe", "-q", talk, "--format", "jsonl", other]) == 0
    sources = {json.loads(line)["source"] for line in capsys.readouterr().out.splitlines()}
    assert sources == {talk, other}


def test_warnings_are_said_quietly_too(tmp_path):
    done = subprocess.run(
        command("transcribe", "-q", "-"), input=bytes(range(200)) * 60, capture_output=True,
        env=ENVIRONMENT, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert b"taken as raw PCM" in done.stderr


@pytest.mark.parametrize("name", ["a b.raw", "x.PCM"])
def test_raw_pcm_by_name_is_told_where_to_go(model, tmp_path, capsys, name):
    (tmp_path / name).write_bytes(bytes(3200))
    assert cli.main(["transcribe", name]) == 1
    remedy = f"voxfast transcribe - --raw-rate 16000 --raw-format s16le < {shlex.quote(name)}"
    assert remedy in capsys.readouterr().err


def test_wav_on_stdin_and_named_pipe(model, talk, tmp_path, monkeypatch, capsys):
    data = (tmp_path / talk).read_bytes()
    monkeypatch.setattr(sys, "stdin", Stdin(data[:40] + b"\xff" * 4 + data[44:]))
    assert cli.main(["transcribe", "-", "-q"]) == 0
    assert capsys.readouterr().out == WORDS + "\n"
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(data)
    assert cli.main(["transcribe", f"/dev/fd/{read}", "-q"]) == 0
    os.close(read)
    assert capsys.readouterr().out == WORDS + "\n"


def test_odd_byte_on_stdin(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(bytes(2 * 25600 + 1)))
    assert cli.main(["transcribe", "-", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == WORDS + "\n"
    assert "middle of a sample" in err


# Errors


def test_unknown_model(model, talk, monkeypatch, capsys):
    def load(name: str, *, dtype: object, kv_bits: object) -> None:
        raise ModelNotFoundError(f"no model {name!r}\nat all")

    monkeypatch.setattr(voxfast, "load", load)
    assert cli.main(["transcribe", talk, "--model", "x"]) == 1
    assert capsys.readouterr().err == "voxfast: error: no model 'x' at all\n"
    with pytest.raises(ModelNotFoundError):
        cli.main(["transcribe", talk, "--model", "x", "--debug"])


def test_failing_session_keeps_its_words(model, talk, tmp_path, capsys):
    def fail(session: FakeSession) -> None:
        if session.heard > 1.2:
            # Committed, but never returned.
            session.unreturned.append(Word(" last", 1.2, 1.2))
            raise ZeroDivisionError("oops")

    model.on_feed = fail
    other = write(tmp_path / "other.wav", 0.2)
    assert cli.main(["transcribe", talk, other, "-q"]) == 1
    out, err = capsys.readouterr()
    assert out == "w1 w2 last\nend\n"
    assert err == "voxfast: error: ZeroDivisionError: oops (this is a bug; --debug shows where)\n"
    with pytest.raises(ZeroDivisionError):
        cli.main(["transcribe", talk, "--debug"])


def test_interrupt_while_modules_are_imported(tmp_path):
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('numpy', 'mlx'):\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from voxfast.cli import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 130
    assert done.stderr == b""


@pytest.mark.parametrize(("options", "lines"), [([], 1), (["-q"], 0)])
def test_the_hub_is_heard_once_or_not_at_all(tmp_path, options, lines):
    write(tmp_path / "talk.wav")
    code = (
        "import sys\n"
        "import voxfast\n"
        "def load(name, dtype, kv_bits):\n"
        "    from huggingface_hub.utils import logging\n"
        "    logging.get_logger('huggingface_hub.utils._http').warning('Retrying')\n"
        "    raise voxfast.ModelNotFoundError('no model')\n"
        "voxfast.load = load\n"
        "from voxfast.cli import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", code, "transcribe", "talk.wav", *options]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("Retrying") == lines


# The bar


def test_progress_bar_is_on_a_terminal_only(model, talk, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert cli.main(["transcribe", talk]) == 0
    assert "of 2 s" in sys.stderr.getvalue()
    # stdout is not the bar's.
    assert capsys.readouterr().out == WORDS + "\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert cli.main(["transcribe", talk, "--quiet"]) == 0
    assert sys.stderr.getvalue() == ""
    # Words on the same terminal are progress enough.
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli.main(["transcribe", talk]) == 0
    assert "of 2 s" not in sys.stderr.getvalue()


def test_characters_that_a_terminal_lacks(monkeypatch):
    from voxfast.cli.console import say

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    say(" naïve")
    stream.seek(0)
    assert stream.read() == " na\\xefve"


# The rest


def test_doctor(model, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hub, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(hub, "cached", lambda repository: None)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: no embedded model" in out
    assert "takes its arrays: OK" in out
    assert "native kernels agree" in out
    (tmp_path / "checkpoints" / "fake").mkdir(parents=True)
    monkeypatch.setattr("fakes.FakeSession.finish", lambda session: [])
    monkeypatch.setattr("fakes.WORD_SECONDS", 99)
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "fake loaded in" in out
    assert out.endswith("everything works\n")
    monkeypatch.setattr("fakes.WORD_SECONDS", 0.5)
    assert cli.main(["doctor"]) == 1
    assert "hears words in silence" in capsys.readouterr().out


def test_without_portaudio(model, monkeypatch, tmp_path, capsys):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr("fakes.WORD_SECONDS", 99)
    monkeypatch.setattr("fakes.FakeSession.finish", lambda session: [])
    for name, code in ("listen", 1), ("doctor", 0):
        assert cli.main([name]) == code
        shown = "".join(capsys.readouterr())
        assert "(PortAudio library not found); on Debian and Ubuntu: apt install libport" in shown
        assert "pip install" not in shown


def test_doctor_with_a_foreign_mlx(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "voxfast._native", None)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "Python" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("voxfast ")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, voxfast, voxfast.cli, voxfast.audio, voxfast.formats, voxfast.hub\n"
        "heavy = {'av', 'soundfile', 'soxr', 'huggingface_hub', 'mistral_common', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
