"""The command, around a model that needs no weights."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import types
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from fakes import FakeModel, FakeSession, signal_after

import voxfast
from voxfast import cli, hub
from voxfast.cli import listen
from voxfast.cli.run import Pace
from voxfast.errors import ModelNotFoundError
from voxfast.timed import Word

WORDS = "w1 w2 w3 end"


@pytest.fixture
def model(monkeypatch, tmp_path) -> FakeModel:
    """The model that every command loads; the current folder is empty."""
    model = FakeModel()
    monkeypatch.setattr(voxfast, "load", model.load, raising=False)
    monkeypatch.chdir(tmp_path)
    return model


@pytest.fixture
def talk(tmp_path) -> str:
    """1.6 s of audio: three words and the end."""
    return write(tmp_path / "talk.wav")


def write(path: Path, seconds: float = 1.6) -> str:
    soundfile.write(path, np.full(round(16000 * seconds), 0.01), 16000)
    return path.name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stdin:
    """stdin that is a pipe with some bytes in it."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


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
    assert cli.main(["transcribe", talk, "--model", "a/b", "--dtype", "bfloat16", *options]) == 0
    assert model.loads == [("a/b", mx.bfloat16)]
    (session,) = model.sessions
    assert session.options == {"delay_ms": 480, "language": "de", "prompt": "Zahlen"}
    assert session.chunks[0] == 528
    assert sum(session.chunks) == 25600


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
    assert "voxfast: error: text.wav is not audio" in err
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


# Where it goes


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
    ],
)
def test_the_suffix_of_the_output_chooses_the_format(model, talk, tmp_path, options, begin):
    assert cli.main(["transcribe", talk, *options]) == 0
    assert (tmp_path / options[1]).read_text().startswith(begin)


def test_unwritable_output_is_known_before_the_work(model, talk, capsys):
    assert cli.main(["transcribe", talk, "-o", "no/such/folder.txt"]) == 1
    assert "voxfast: error: no/such/folder.txt: No such file" in capsys.readouterr().err
    assert model.sessions == []


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
    def load(name: str, *, dtype: object) -> None:
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_keeps_what_was_transcribed(model, talk, tmp_path, capsys, number, code):
    before = signal.getsignal(number)
    model.on_feed = signal_after(1.2, number)
    assert cli.main(["transcribe", talk]) == code
    seen = capsys.readouterr()
    assert seen.out == "w1 w2\n"
    assert seen.err.endswith("voxfast: interrupted\n")
    model.on_feed = signal_after(1.2, number)
    assert cli.main(["transcribe", talk, "-f", "json", "-o", "out.json"]) == code
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["complete"] is False
    assert document["text"] == "w1 w2"
    assert "interrupted; out.json has" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "talk.wav"]
    assert not model.sessions[-1].committed[2:]
    assert not model.is_open
    assert signal.getsignal(number) is before


SCRIPT = """
import sys
import voxfast
from fakes import FakeModel
model = FakeModel()
model.feed_seconds = {feed_seconds}
voxfast.load = model.load
from voxfast.cli import main
sys.exit(main())
"""


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent), str(Path(voxfast.__file__).parent.parent)]
    ),
}


def start(tmp_path: Path, *arguments: str, feed_seconds: float = 0.0) -> "subprocess.Popen[bytes]":
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(feed_seconds=feed_seconds), *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def test_live_pipe_and_reader_that_goes_away(tmp_path):
    process = start(tmp_path, "transcribe", "-", "-f", "jsonl", "-q")
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(bytes(2 * 8000))
    # The first word is out although stdin stays open.
    assert json.loads(process.stdout.readline())["text"] == " w1"
    process.stdout.close()
    process.stdin.write(bytes(2 * 8000))
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "message"),
    [
        (1, ["talk.wav"], 1, b"stdout: Bad file descriptor"),
        (1, ["talk.wav", "-o", "talk.txt"], 0, b""),
        (2, ["talk.wav", "-o", "talk.txt"], 0, b""),
        (0, ["-", "talk.wav", "-o", "."], 1, b"stdin holds no audio"),
    ],
)
def test_streams_that_the_shell_closed(tmp_path, closed, arguments, code, message):
    write(tmp_path / "talk.wav")
    command = [sys.executable, "-c", SCRIPT.format(feed_seconds=0), "transcribe", *arguments]
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(command)} {closed}>&-"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert done.returncode == code
    assert message in done.stderr
    assert b"bug" not in done.stderr
    assert done.stderr.count(b"error") == (code != 0)  # nor complains Python at its end
    if "-o" in arguments:
        assert (tmp_path / "talk.txt").read_text() == WORDS + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full here")
@pytest.mark.parametrize(
    ("arguments", "place"),
    [(["talk.wav", "talk.wav"], "stdout"), (["talk.wav", "-o", "/dev/full"], "/dev/full")],
)
def test_full_places_are_named(tmp_path, arguments, place):
    write(tmp_path / "talk.wav")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(feed_seconds=0), "transcribe", "-q", *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr.decode() == f"voxfast: error: {place}: No space left on device\n"


def test_interrupt_of_a_process(tmp_path):
    write(tmp_path / "long.wav", 600)
    process = start(tmp_path, "transcribe", "long.wav", "-q", feed_seconds=0.01)
    assert process.stdout
    assert process.stdout.read(2) == b"w1"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert err == b""


def test_interrupt_while_modules_are_imported(tmp_path):
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('numpy', 'mlx'):\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['voxfast', 'doctor']\n"
        "from voxfast.cli import main\n"
        "sys.exit(main())\n"
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
        "def load(name, dtype):\n"
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


# Pace


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.time += seconds


def test_pace_of_a_file():
    clock = Clock()
    pace = Pace(now=clock.now, sleep=clock.sleep)
    for i in range(4):
        pace.before(0.5)
        clock.time += 0.2
        # The word that ends at i/2 s is committed half a second and the work later.
        pace.after([Word(" w", 0, i / 2)])
    pace.after([])
    # The first block is there when it would have been spoken; work counts as waiting.
    assert clock.slept == [0.5, 0.3, 0.3, 0.3]
    assert pace.report() == (
        "4 words, lag median 0.70 s, 95 % 0.70 s, longest 0.70 s; "
        "real-time factor 0.400 (0.80 s for 2.00 s)"
    )


def test_pace_that_cannot_be_kept():
    clock = Clock()
    pace = Pace(now=clock.now, sleep=clock.sleep)
    for i in range(4):
        pace.before(0.5)
        clock.time += 1.0
        pace.after([Word(" w", 0, (i + 1) / 2)])
    assert clock.slept == [0.5]
    assert "median 1.75 s, 95 % 2.42 s, longest 2.50 s; real-time factor 2.000" in pace.report()


def test_pace_of_a_live_stream():
    clock = Clock()
    pace = Pace(live=True, now=clock.now, sleep=clock.sleep)
    for _ in range(2):
        pace.before(0.5)
        clock.time += 0.5
    assert clock.slept == []
    assert pace.report() == "no words; real-time factor 0.000 (0.00 s for 1.00 s)"


def test_realtime_report(model, talk, monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setitem(Pace.__init__.__kwdefaults__, "sleep", slept.append)
    assert cli.main(["transcribe", talk, "--realtime", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out == WORDS + "\n"
    assert err.startswith("voxfast: talk.wav: 4 words, lag median ")
    assert "for 1.60 s)" in err
    assert len(slept) == 20


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


# The microphone


class PortAudioError(Exception):
    pass


class FakeMicrophone(types.ModuleType):
    """A stand-in for sounddevice that records a second of silence and then Ctrl-C."""

    PortAudioError = PortAudioError

    def __init__(self, *, rates: tuple[int, ...] = (16000,), inputs: int = 1) -> None:
        super().__init__("sounddevice")
        self.rates, self.inputs = rates, inputs
        self.opened: dict[str, object] = {}

    def query_devices(self, device: object = None, kind: str | None = None) -> object:
        info = {"name": "Mic", "default_samplerate": 48000.0, "max_input_channels": 1}
        if kind is None:
            return [{**info, "name": "Speaker", "max_input_channels": 0}, *[info] * self.inputs]
        if device not in (None, 1, "Mic"):
            raise ValueError(f"No input device matching {device!r}")
        return info

    def check_input_settings(self, *, device: object, channels: int, samplerate: float) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def InputStream(self, **options: object) -> "FakeMicrophone":
        self.opened = options
        return self

    def __enter__(self) -> None:
        rate, size = self.opened["samplerate"], self.opened["blocksize"]
        status = types.SimpleNamespace(input_overflow=False)
        for i in range(round(rate / size)):
            status = types.SimpleNamespace(input_overflow=i == 3)
            self.opened["callback"](np.zeros((size, 1), np.float32), size, None, status)
        os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.mark.parametrize("rates", [(16000,), (48000,)])
def test_listen(model, monkeypatch, capsys, rates):
    microphone = FakeMicrophone(rates=rates)
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["listen", "--device", "1", "--chunk-ms", "100"]) == 0
    out, err = capsys.readouterr()
    assert out == "w1 w2 end\n"
    assert "listening; Ctrl-C ends" in err
    assert "lost some audio" in err
    assert sum(model.sessions[0].chunks) == 16000
    assert microphone.opened["samplerate"] == rates[0]
    assert microphone.opened["device"] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_listen_to_a_file(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    assert cli.main(["listen", "--chunk-ms", "100", "-f", "json", "-o", "out.json"]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["text"] == "w1 w2 end"
    assert document["complete"] is True


def test_slow_recognition_is_said_once(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    monkeypatch.setattr(listen, "_BEHIND_SECONDS", 0.5)
    assert cli.main(["listen", "--chunk-ms", "100"]) == 0
    assert capsys.readouterr().err.count("behind the microphone") == 1


def test_microphones(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    assert cli.main(["listen", "--list-devices"]) == 0
    assert capsys.readouterr().out == "  1  Mic  (48000 Hz)\n"
    assert cli.main(["listen", "--device", "nope"]) == 1
    assert "--list-devices" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone(inputs=0))
    assert cli.main(["listen"]) == 1
    assert "there is no microphone" in capsys.readouterr().err
    assert cli.main(["listen", "--list-devices"]) == 1
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["listen"]) == 1
    assert "pip install 'voxfast[microphone]'" in capsys.readouterr().err
    assert model.loads == []


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
    for command, code in ("listen", 1), ("doctor", 0):
        assert cli.main([command]) == code
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
        "heavy = {'soundfile', 'soxr', 'huggingface_hub', 'mistral_common', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
