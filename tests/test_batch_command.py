"""Archives: ``voxfast batch``, what it tells, and its exit codes."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from archive import touch
from fake_pool import FakePool, ids_of

from voxfast import cli
from voxfast.batch import collect, job, transcribe_files
from voxfast.batch.index import Index
from voxfast.batch.pools import Loss
from voxfast.batch.transcriber import Result


@pytest.fixture
def pool(monkeypatch, tmp_path) -> FakePool:
    return FakePool.installed(monkeypatch, tmp_path)


def test_the_command(pool, tmp_path, capsys):
    touch(tmp_path, "in/a.wav", "in/b.wav", "in/notes.txt")
    pool.suffixes = ("srt", "txt")
    pool.failing = {"in/b.wav"}
    arguments = ["batch", "in", "-o", "out", "-f", "srt", "-f", "text", "--model", "m"]
    assert cli.main(arguments) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "2 of 2 recordings" in told.err
    assert "voxfast: error: in/b.wav: it is broken\n" in told.err
    assert "1 failed: see out/index.jsonl" in told.err
    assert (tmp_path / "out/in/a.wav.srt").exists()
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert "0 of 2 recordings; 1 complete before" in told
    assert "1 failed before: see out/index.jsonl; --retry takes them again" in told
    pool.failing.clear()
    assert cli.main([*arguments, "--retry", "-q"]) == 0
    assert "recordings" not in capsys.readouterr().err
    assert cli.main([*arguments, "--limit", "5", "--shard", "1/1"]) == 0


def test_the_command_on_a_terminal(pool, tmp_path, capsys, monkeypatch):
    touch(tmp_path, "a.wav")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["batch", "a.wav", "-o", "out"]) == 0
    told = capsys.readouterr().err
    assert "1 of 1" in told
    assert "a demonstration that knows 71 words" in told
    pool.failing = {"b.wav"}
    touch(tmp_path, "b.wav")
    assert cli.main(["batch", "a.wav", "b.wav", "-o", "out"]) == 1
    assert "voxfast: error: b.wav: it is broken\n" in capsys.readouterr().err
    assert cli.main(["batch", "a.wav", "-o", "out"]) == 0
    assert "demonstration" not in capsys.readouterr().err  # nothing was left to do


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_failures_are_told(pool, tmp_path, capsys, quiet):
    names = [f"in/{i}.wav" for i in range(14)]
    touch(tmp_path, *names, "in/\x1b[2J.wav")
    pool.failing = {*names[1:], "in/\x1b[2J.wav"}
    assert cli.main(["batch", "in", "-o", "out", "--model", "m", *quiet]) == 1
    told = capsys.readouterr().err.splitlines()
    assert sum(line.endswith(": it is broken") for line in told) == 10
    assert "voxfast: more failures are not shown; see out/index.jsonl" in told
    assert "\x1b" not in "".join(told)
    assert [line for line in told if "14 failed: see out/index.jsonl" in line] == told[11:]


def test_a_summary_in_words(pool, tmp_path, capsys):
    touch(tmp_path, "a.wav", "b.wav")
    pool.failing = {"a.wav", "b.wav"}
    cli.main(["batch", "a.wav", "b.wav", "-o", "out", "--limit", "1", "--shard", "1/1"])
    told = capsys.readouterr().err
    assert "voxfast: 1 of 2 recordings; 1 failed: see out/index.1-of-1.jsonl; 1 left\n" in told
    cli.main(["batch", "a.wav", "-o", "out", "--retry"])
    assert "voxfast: 1 of 1 recording; 1 failed: see out/index*.jsonl\n" in capsys.readouterr().err


def test_the_documented_list_of_failures(pool, tmp_path):
    """Of all shards, and without those that succeeded later."""
    text = (Path(__file__).parent.parent / "docs" / "batch.md").read_text()
    command = re.search(r"^cat transcripts/index.*$", text, re.MULTILINE)[0]
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    pool.failing = {"a.wav", "b.wav"}
    transcribe_files(["a.wav", "b.wav", "c.wav"], "transcripts", shard=(1, 1))
    pool.failing = {"b.wav"}
    transcribe_files(["a.wav", "b.wav", "c.wav"], "transcripts", retry=True)
    told = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("b.wav\tit is broken\n", "")


def test_the_documented_manifest(tmp_path):
    text = (Path(__file__).parent.parent / "docs" / "batch.md").read_text()
    (tmp_path / "m.csv").write_text(re.search(r"```csv\n(.*?)```", text, re.DOTALL)[1])
    found = collect([tmp_path / "m.csv"])
    assert [list(item.options) for item in found.recordings.values()] == [
        ["vocabulary", "delay_ms"],
        [],
        ["vocabulary", "delay_ms"],
    ]
    assert found.unused == set()


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing/"], "there is no file or folder nothing/"),
        (["nothing"], "there is no file or folder nothing"),
        (["nothing.csv"], "nothing.csv cannot be read: No such file"),
        (["*.mp3"], "no file matches"),
        (["twice.csv"], "two recordings have the id '1'"),
        (["outside.csv"], "names no place below the folder of results"),
        (["wrong.csv"], "delay_ms 'soon' is no number"),
        (["a.wav", "-o", "a.wav"], "--output a.wav is a file; name a folder"),
        (["a.wav", "-o", "a.wav/out"], "--output a.wav/out: Not a directory"),
        (["a.wav", "-o", "held"], "another voxfast batch"),
        (["a.wav", "--shard", "1/2", "--ray", "--workers", "3"], "--workers"),
    ],
)
def test_a_run_that_is_refused(pool, tmp_path, capsys, arguments, message):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "twice.csv").write_text("path,id\na.wav,1\nb.wav,1\n")
    (tmp_path / "outside.csv").write_text("path,id\na.wav,../a\n")
    (tmp_path / "wrong.csv").write_text("path,delay_ms\na.wav,soon\n")
    (tmp_path / "held").mkdir()
    with Index(tmp_path / "held"):
        assert cli.main(["batch", "-o", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert pool.given == []


def test_a_run_that_ends_early(pool, tmp_path, monkeypatch):
    touch(tmp_path, "a.wav", "b.wav")
    write = job.write_whole

    def full(path: Path, text: str) -> None:
        if len(pool.given) == 2 and not pool.busy:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(job, "write_whole", full)
    assert cli.main(["batch", "a.wav", "b.wav", "-o", "out"]) == 1
    assert ids_of(tmp_path / "out/index.jsonl") == ["b.wav"]
    pool.given.clear()
    assert cli.main(["batch", "a.wav", "-o", "out", "--limit", "1"]) == 0
    monkeypatch.setattr(job, "write_whole", lambda *_: write(tmp_path / "a.wav" / "x", ""))
    monkeypatch.setattr(job, "UNWRITABLE_NAMES", ())
    assert cli.main(["batch", "a.wav", "b.wav", "-o", "out2"]) == 2  # before the first result


def test_an_interrupt_keeps_what_is_finished(pool, tmp_path, capsys):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    wait = pool.wait

    def interrupted() -> list[Result | Loss]:
        if len(pool.given) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return wait()

    pool.wait = interrupted
    assert cli.main(["batch", "a.wav", "b.wav", "c.wav", "-o", "out"]) == 143
    assert "interrupted; 1 recording finished and kept" in capsys.readouterr().err
    assert pool.is_closed
    assert len(ids_of(tmp_path / "out/index.jsonl")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--channel", "each"], "one transcript here"),
        (["--ray", "--workers", "2"], "with --ray say --actors"),
        (["--ray", "a.wav"], "put --ray behind the inputs, or say --ray=ADDRESS"),
        (["--shard", "3/2"], "not a part"),
        (["--shard", "x"], "not a part"),
        (["--actors", "4,2"], "the least and the most"),
        (["--actor-cpus", "-1"], "not 0 to"),
        (["--actors", "1,2"], "say --ray, or --workers"),
        (["--actor-gpus", "1", "--workers", "2"], "say --ray, or --workers"),
        (["--format", "doc"], "invalid choice"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.wav")
    try:
        code = cli.main(["batch", "a.wav", "-o", "out", *arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ray", "in"], "--ray takes an address, and in was taken for it"),
        ([], "name what to transcribe"),
    ],
)
def test_no_inputs(tmp_path, capsys, arguments, message):
    assert cli.main(["batch", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
