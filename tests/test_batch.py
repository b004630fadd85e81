"""Archives: with real workers, and what becomes of their results."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from archive import BROKEN, make_archive
from command_line import ENVIRONMENT
from evaluation import EVAL_FOLDER

import voxfast
from voxfast.batch import Recording, TranscribeBatch, Transcriber, processes, transcribe_files

FORMATS = ["json", "srt", "text"]
SUFFIXES = ["json", "srt", "txt"]
HEARD_IN_PART = sum(kind.startswith("cut") for kind in BROKEN)


def index_of(folder: Path) -> dict[str, dict]:
    """The lines of an index; each id is there once."""
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def results_of(folder: Path) -> dict[str, bytes]:
    """All files but the index."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "index.jsonl"
    }


def plain(lines: dict[str, dict]) -> dict[str, dict]:
    """Lines without what differs from run to run."""
    return {id_: {**line, "seconds": 0} for id_, line in lines.items()}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    make_archive(folder, 6, len(BROKEN), longest=2.5)
    return folder


@pytest.fixture(scope="module")
def one(archive, tmp_path_factory) -> Path:
    """What one process makes of the archive."""
    folder = tmp_path_factory.mktemp("one")
    with contextlib.chdir(archive):
        state = transcribe_files(["."], folder, formats=FORMATS, workers=1)
    assert (state.recordings, state.done, state.failed) == (16, 16, len(BROKEN))
    return folder


def test_every_recording_has_a_line(archive, one):
    lines = index_of(one)
    assert lines.keys() == {
        str(path.relative_to(archive)) for path in archive.rglob("*.*") if path.is_file()
    }
    for id_, line in lines.items():
        assert line["path"] == str(archive / id_)
        assert (line["error"] is not None) == id_.startswith("broken")
        assert line["model"] == "voxtral-numbers"
        assert line["version"] == voxfast.__version__
        assert line["seconds"] >= 0
        assert line["files"] == [
            f"{id_}.{suffix}" for suffix in SUFFIXES if line["words"] is not None
        ]
    assert results_of(one).keys() == {file for line in lines.values() for file in line["files"]}


def test_what_is_left_of_a_broken_recording_is_heard(one):
    lines = index_of(one)
    broken = {id_: line for id_, line in lines.items() if id_.startswith("broken")}
    in_part = {id_: line for id_, line in broken.items() if line["duration"]}
    assert len(in_part) == HEARD_IN_PART
    assert all("cut." in id_ for id_ in in_part)
    for id_ in in_part:
        document = json.loads((one / f"{id_}.json").read_text())
        assert document["complete"] is False
        assert 0.5 < document["duration"] < 2.5
    for id_ in lines.keys() - broken.keys():
        assert json.loads((one / f"{id_}.json").read_text())["complete"] is True


def test_a_result_is_that_of_transcribe(archive, one):
    for id_ in ("0/talk.flac", "0/talk.m4a"):
        expected = voxfast.transcribe(archive / id_)
        assert (one / f"{id_}.txt").read_text() == voxfast.formats.to_text(expected)
        line = index_of(one)[id_]
        assert line["words"] == len(expected.words) > 0
        assert line["duration"] == round(expected.duration, 3)


def test_two_processes_give_what_one_gives(archive, one, tmp_path, monkeypatch):
    monkeypatch.chdir(archive)
    assert transcribe_files(["."], tmp_path, formats=FORMATS, workers=2).done == 16
    assert results_of(tmp_path) == results_of(one)
    assert plain(index_of(tmp_path)) == plain(index_of(one))


def test_workers_that_are_killed_are_replaced(archive, one, tmp_path, monkeypatch):
    """Two at random moments; and one recording kills each worker that takes it."""
    monkeypatch.chdir(archive)
    given: Counter[str] = Counter()
    give = processes._Worker.give

    def deadly(worker: processes._Worker, recording: Recording) -> None:
        give(worker, recording)
        given[recording.id] += 1
        if recording.id == "0/talk.mp3" or (
            recording.id in ("0/talk.wav", "0/talk.flac") and given[recording.id] == 1
        ):
            worker.process.send_signal(signal.SIGKILL)

    monkeypatch.setattr(processes._Worker, "give", deadly)
    state = transcribe_files(["0"], tmp_path, formats=FORMATS, workers=2, attempts=2)
    assert (state.done, state.failed) == (6, 1)
    assert given["0/talk.mp3"] == given["0/talk.wav"] == 2
    lines, expected = index_of(tmp_path), index_of(one)
    error = lines.pop("0/talk.mp3")["error"]
    assert error == "its worker was ended by signal 9 (SIGKILL); tried 2 times"
    assert plain(lines) == plain({id_: expected[id_] for id_ in lines})
    assert len(results_of(tmp_path)) == 5 * len(FORMATS)
    for name, data in results_of(tmp_path).items():
        assert data == results_of(one)[name]


def test_workers_that_never_start_end_the_job(archive, tmp_path, monkeypatch):
    give = processes._Worker.give

    def deadly(worker: processes._Worker, recording: Recording) -> None:
        give(worker, recording)
        worker.process.send_signal(signal.SIGKILL)

    monkeypatch.setattr(processes._Worker, "give", deadly)
    with pytest.raises(voxfast.batch.WorkersLostError, match=r"signal 9 \(SIGKILL\)"):
        transcribe_files([archive], tmp_path, workers=1, attempts=9)
    assert results_of(tmp_path) == {}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "voxfast", "batch", *map(str, arguments)]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def count(index: Path) -> int:
    return index.read_bytes().count(b"\n")


def until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
def test_a_driver_that_is_killed_goes_on_where_it_was(archive, one, tmp_path):
    """Killed after its second result and after its eighth; then it completes the archive."""
    index = tmp_path / "index.jsonl"
    arguments = [".", "-o", tmp_path, "--workers", "2", "-q"]
    arguments += [part for name in FORMATS for part in ("--format", name)]
    done: list[str] = []
    for number in (2, 8):
        driver = subprocess.Popen(command(*arguments), cwd=archive, env=ENVIRONMENT)
        until(
            lambda number=number: index.exists() and len(index.read_bytes().splitlines()) > number
        )
        workers = children(driver.pid)
        driver.kill()
        driver.wait()
        assert workers
        until(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        lines = index.read_text().splitlines()
        assert lines[: len(done)] == done  # nothing is done twice
        done = lines
    with index.open("a") as file:
        file.write('{"id": "0/ta')  # as a crash of the machine might leave it
    last = subprocess.run(
        command(*arguments), cwd=archive, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (last.returncode, last.stdout) == (1, "")  # ten are broken
    assert all(line.startswith("voxfast: error: broken/") for line in last.stderr.splitlines())
    assert index.read_text().splitlines()[: len(done)] == done
    assert plain(index_of(tmp_path)) == plain(index_of(one))
    assert results_of(tmp_path) == results_of(one)


def test_ctrl_c_says_how_to_go_on(archive, tmp_path):
    index = tmp_path / "index.jsonl"
    driver = subprocess.Popen(
        command(".", "-o", tmp_path, "--workers", "1"),
        cwd=archive,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: index.exists() and count(index) > 1)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: workers get it, too
    _, told = driver.communicate()
    assert driver.returncode == 130
    done = len(index_of(tmp_path))
    recordings = "recording" if done == 1 else "recordings"
    assert f"voxfast: interrupted; {done} {recordings} finished and kept" in told
    assert "Traceback" not in told


def test_a_named_file_that_is_missing_fails_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = str(EVAL_FOLDER / "eval_00.flac")
    state = transcribe_files([clip, "gone.wav"], "out", workers=1)
    assert (state.done, state.failed) == (2, 1)
    lines = index_of(tmp_path / "out")
    assert lines["gone.wav"]["error"] == f"{tmp_path}/gone.wav does not exist"
    assert lines[clip[1:]]["error"] is None


def test_a_model_that_is_missing_ends_the_job(archive, tmp_path):
    with pytest.raises(voxfast.ModelNotFoundError):
        transcribe_files([archive], tmp_path, model="no-such-model")


def test_an_option_of_no_model_ends_the_job(archive, tmp_path):
    with pytest.raises(voxfast.InvalidOptionError, match="delay"):
        transcribe_files([archive], tmp_path, workers=1, delay_ms=7)
    assert index_of(tmp_path) == {}


def test_rows_with_options_of_no_model_are_named(archive, tmp_path):
    """Before the first recording, and without lines in the index."""
    manifest = archive / "rows.csv"
    rows = ["0/talk.wav,480,", "0/talk.mp3,7,", "0/talk.flac,,tlh", "0/talk.opus,7,ja"]
    manifest.write_text("\n".join(["path,delay_ms,language", *rows, ""]))
    for _ in range(2):
        with pytest.raises(voxfast.InvalidOptionError) as raised:
            transcribe_files([manifest], tmp_path, workers=1, retry=True)
        assert index_of(tmp_path) == {}
    delay, language = str(raised.value).split("; line")
    assert delay.startswith("line 3 (0/talk.mp3), line 5 (0/talk.opus): voxtral-numbers was ")
    assert delay.endswith("got delay_ms=7")
    assert language.startswith(" 4 (0/talk.flac): ")
    assert "tlh" in language
    manifest.unlink()


def test_one_recording_with_an_option_that_cannot_be_fails():
    clip = str(EVAL_FOLDER / "eval_00.flac")
    with Transcriber(formats=["srt"]) as transcriber:
        for options, reason in [
            ({"delay_ms": 7}, "delay"),
            ({"channel": 2}, "there is no channel 2"),
            ({"channel": "each"}, "one transcript"),
        ]:
            result = transcriber(Recording("a", clip, options))
            assert reason in (result.error or "")
            assert result.texts == {}
            assert result.line(transcriber.settings)["options"] == options
        good = transcriber(Recording("a", clip, {"skip_silence": True}))
        assert good.error is None
        assert good.line(transcriber.settings)["skipped"] > 0


def test_flaws_of_a_recording_are_warnings(tmp_path):
    import soundfile

    samples, _ = soundfile.read(EVAL_FOLDER / "eval_00.flac", dtype="float32")
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with Transcriber() as transcriber:
        result = transcriber(Recording("nan", str(tmp_path / "nan.wav")))
        assert result.error is None
        assert [warning for warning in result.warnings if "1 sample is no audio" in warning]
        clean = transcriber(Recording("clean", str(EVAL_FOLDER / "eval_00.flac")))
        assert clean.warnings == ()


def test_a_step_of_a_pipeline(tmp_path):
    """What Ray Data calls, with the columns that it gives."""
    step = TranscribeBatch(formats=["json", "text"], option_columns=["delay_ms"])
    batch = {
        "path": np.array([str(EVAL_FOLDER / "eval_00.flac"), str(tmp_path / "none.wav")], object),
        "delay_ms": np.array([960, 480]),
        "speaker": np.array(["a", "b"], object),
    }
    got = step(batch)
    assert {len(column) for column in got.values()} == {2}
    assert list(got["speaker"]) == ["a", "b"]
    expected = voxfast.transcribe(EVAL_FOLDER / "eval_00.flac", delay_ms=960)
    assert list(got["text"]) == [expected.text, ""]
    assert list(got["txt"]) == [voxfast.formats.to_text(expected), ""]
    assert list(got["words"]) == [len(expected.words), 0]
    assert got["error"][0] == ""
    assert "does not exist" in got["error"][1]
    assert got["duration"][0] == pytest.approx(expected.duration, abs=1e-3)
    assert np.isnan(got["duration"][1])
    assert json.loads(got["json"][0])["text"] == expected.text


def test_rows_that_are_no_recordings_fail_alone():
    step = TranscribeBatch(option_columns=["delay_ms", "vocabulary"])
    clip = str(EVAL_FOLDER / "eval_00.flac")
    lists = np.empty(5, object)
    lists[:] = [np.array(["door"], object), None, None, None, {"a": 1}]
    batch = {
        "path": np.array([clip, None, "", "a\udcff\0.wav", clip], object),
        "delay_ms": np.array([480.0, np.nan, np.nan, np.nan, 480.0]),
        "vocabulary": lists,
    }
    errors = list(step(batch)["error"])
    assert errors[0] == ""
    assert all("path" in error or "id" in error for error in errors[1:4])
    assert "no list of phrases" in errors[4]
