"""Signals, pipes, and streams that end early."""

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, WORDS, command, start, write
from fakes import FakeSession, signal_after

from voxfast import cli
from voxfast.cli import signals
from voxfast.cli.signals import Ending, Interrupted

RAW = ("transcribe", "-", "--raw-rate", "16000", "-q")

SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]

# Signals


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_first_signal_brings_the_last_words(model, talk, capsys, number, code):
    before = signal.getsignal(number)
    model.on_feed = signal_after(1.2, number)
    assert cli.main(["transcribe", talk]) == code
    seen = capsys.readouterr()
    assert seen.out == "w1 w2 end\n"
    assert seen.err.endswith("voxfast: interrupted\n")
    assert not model.is_open
    assert signal.getsignal(number) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_last_words_that_take_too_long_are_left(model, talk, monkeypatch, capsys, number, code):
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.05)
    model.on_feed = signal_after(1.2, number)
    model.finish_seconds = 60
    assert cli.main(["transcribe", talk, "-q"]) == code
    assert capsys.readouterr().out == "w1 w2\n"


def test_the_second_signal_ends_at_once(model, talk, capsys):
    def twice(session: FakeSession) -> None:
        if session.heard >= 1.2:
            with contextlib.suppress(Interrupted):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

    model.on_feed = twice
    model.finish_seconds = 60
    assert cli.main(["transcribe", talk, "-q"]) == 130
    assert capsys.readouterr().out == "w1 w2\n"


def test_a_signal_stops_the_inputs_that_follow(model, talk, tmp_path, capsys):
    other = write(tmp_path / "other.wav")
    model.on_feed = signal_after(1.2, signal.SIGINT)
    assert cli.main(["transcribe", talk, other, "-q"]) == 130
    assert capsys.readouterr().out == "w1 w2 end\n"
    assert len(model.sessions) == 1


def test_a_signal_that_is_ignored_stays_ignored(model, talk, capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        model.on_feed = signal_after(1.2, signal.SIGHUP)
        assert cli.main(["transcribe", talk, "-q"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert capsys.readouterr().out == WORDS + "\n"


@pytest.mark.parametrize("patient", [True, False])
def test_writing_is_not_interrupted(monkeypatch, patient):
    monkeypatch.setattr(signals, "GRACE_SECONDS", 30)
    done = []
    with Ending(patient=patient) as ending:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("written")  # no error here
        if patient:
            ending.call(done.append, "read")
        else:
            with pytest.raises(Interrupted):
                ending.call(done.append, "read")
        assert ending.interrupt
        assert ending.interrupt.exit_code == 130
    assert done == ["written", "read"][: 1 + patient]


def test_writing_that_never_ends_is_interrupted(monkeypatch):
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.02)
    with Ending(patient=False):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            time.sleep(60)


# A producer at the other end of a pipe


def audio(seconds: float) -> bytes:
    return bytes(2 * round(16000 * seconds))


def test_ctrl_c_waits_for_the_last_audio_of_a_pipe(tmp_path):
    """As in ``arecord | voxfast``: both get the signal, and the producer has more to say."""
    process = start(tmp_path, *RAW, "-f", "json", finish_seconds=1.5)
    assert process.stdin
    assert process.stdout
    process.stdin.write(audio(0.6))
    wait_for_reader(process)
    process.send_signal(signal.SIGINT)
    process.stdin.write(audio(1.0))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    document = json.loads(out)
    assert document["text"] == WORDS
    assert document["duration"] == 1.6
    assert document["complete"] is True


def test_ctrl_c_that_cuts_the_audio_says_so_and_ends(tmp_path):
    write(tmp_path / "next.wav")
    process = start(tmp_path, "transcribe", "-", "next.wav", "-q")
    assert process.stdin
    process.stdin.write(audio(0.6))
    wait_for_reader(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(b"\0", timeout=60)
    assert process.returncode == 130
    assert out == b"w1 end\n"
    assert b"in the middle of a sample" in err


def test_ctrl_c_ends_a_pipe_whose_producer_goes_on(tmp_path):
    process = start(tmp_path, *RAW, "-f", "json")
    assert process.stdin
    assert process.stdout
    process.stdin.write(audio(0.6))
    wait_for_reader(process)
    process.send_signal(signal.SIGINT)
    document = json.loads(process.stdout.read())  # stdin is open still
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130
    assert document["text"] == "w1 end"
    assert document["complete"] is False


def test_ctrl_c_of_a_terminal_reaches_the_whole_pipeline(tmp_path):
    producer = (
        "import os, signal, sys, time\n"
        "def stop(*_):\n"
        "    sys.stdout.buffer.write(bytes(32000)); sys.stdout.flush(); os._exit(0)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "sys.stdout.buffer.write(bytes(32000)); sys.stdout.flush()\n"
        "while True: time.sleep(1)\n"
    )
    pipeline = f"{shlex.join([sys.executable, '-c', producer])} | " + shlex.join(
        command(*RAW, "-o", "talk.txt")
    )
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve("/bin/sh", ["sh", "-c", pipeline], ENVIRONMENT)
    try:
        talk = tmp_path / "talk.txt"
        while not talk.exists() or talk.read_text() != "w1 w2":
            time.sleep(0.01)
        os.write(terminal, b"\x03")
        _, status = os.waitpid(child, 0)
    finally:
        os.close(terminal)
    assert talk.read_text() == "w1 w2 w3 w4 end\n"
    assert os.waitstatus_to_exitcode(status) in (130, -signal.SIGINT)


def wait_for_reader(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process has read what was written to it, and so handles signals."""
    import array
    import fcntl
    import termios

    assert process.stdin
    waiting = array.array("i", [1])
    while waiting[0]:
        assert process.poll() is None
        time.sleep(0.01)
        fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)


# Readers of stdout


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_every_byte(tmp_path):
    write(tmp_path / "talk.wav", 300)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        command("transcribe", "talk.wav", "-q", "-f", "json", text=" " + "x" * 2000 + "{}"),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=writer,
    )
    os.close(writer)
    pieces = []
    while piece := os.read(reader, 50_000):
        pieces.append(piece)
        time.sleep(0.001)
    os.close(reader)
    assert process.wait() == 0
    data = b"".join(pieces)
    assert len(data) > 1_000_000
    assert len(json.loads(data)["words"]) == 601


def test_a_reader_of_a_pipe_that_does_not_block_goes_away(tmp_path):
    write(tmp_path / "talk.wav", 300)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        command("transcribe", "talk.wav", "-q", text=" " + "x" * 2000 + "{}"),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert os.read(reader, 10)
    os.close(reader)
    assert process.communicate()[1] == b""
    assert process.returncode == 141


def test_an_interrupt_is_answered_while_the_reader_sleeps(tmp_path):
    write(tmp_path / "talk.wav", 300)
    process = start(tmp_path, "transcribe", "talk.wav", "-q", text=" " + "x" * 2000 + "{}")
    assert process.stdout
    assert process.stdout.read(10)  # and nothing more
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    process.communicate()


def test_live_pipe_and_reader_that_goes_away(tmp_path):
    process = start(tmp_path, *RAW, "-f", "jsonl")
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
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(command('transcribe', *arguments))} {closed}>&-"],
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
            command("transcribe", "-q", *arguments),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr.decode() == f"voxfast: error: {place}: No space left on device\n"


def test_a_signal_while_leaving_ends_the_process_as_it_is():
    program = (
        "import os, signal\n"
        "from voxfast.cli.signals import interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)  # as the model is closed\n"
        "        print('closing was interrupted, or went on', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
