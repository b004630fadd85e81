"""Archives: the index, files, and what a job makes of the results of its workers."""

import json
import os
import re
import signal
import subprocess
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

import pytest
from archive import touch

from voxfast import cli
from voxfast.batch import Cluster, Progress, collect, files, job, processes, transcribe_files
from voxfast.batch.index import Index
from voxfast.batch.pools import Loss
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result
from voxfast.errors import DatasetError, InvalidOptionError
from voxfast.timed import Transcript, Word


class FakePool:
    """Workers that take the name of a file for its transcript; some come to an end."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.busy: list[Recording] = []
        self.given: list[str] = []
        self.lost: Counter[str] = Counter()  # how often an id loses its worker
        self.failing: set[str] = set()
        self.cut: set[str] = set()  # ids of which a part can be heard
        self.is_closed = False

    def __enter__(self) -> "FakePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True

    @property
    def is_busy(self) -> bool:
        return bool(self.busy)

    def fill(self, queue: deque[Recording]) -> None:
        while queue and len(self.busy) < self.size:
            self.busy.append(queue.popleft())
            self.given.append(self.busy[-1].id)

    def wait(self) -> list[Result | Loss]:
        recording = self.busy.pop()
        if self.lost[recording.id]:
            self.lost[recording.id] -= 1
            return [Loss(recording, "its worker was lost")]
        if recording.id in self.failing:
            return [Result(recording, error="it is broken")]
        transcript = Transcript((Word(f" {recording.id}", 0.0, 1.0),), 1.0)
        if recording.id in self.cut:
            texts = dict.fromkeys(self.suffixes, "a part")
            return [Result(recording, texts, transcript, error="it is cut off")]
        texts = dict.fromkeys(self.suffixes, recording.id)
        return [Result(recording, texts, transcript, seconds=0.5)]

    suffixes = ("json",)


@pytest.fixture
def pool(monkeypatch, tmp_path) -> FakePool:
    pool = FakePool()
    monkeypatch.setattr(job, "_pool", lambda *_: pool)
    monkeypatch.chdir(tmp_path)
    return pool


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids_of(path: Path) -> list[str]:
    return [line["id"] for line in lines_of(path)]


# The index


LINE = {"id": "a", "path": "/a", "error": None, "files": [], "model": "m", "options": {}}


def test_a_line_that_was_cut_off_is_removed(tmp_path):
    path = tmp_path / "index.jsonl"
    with Index(tmp_path) as index:
        index.add(LINE)
        index.add({**LINE, "id": "b"})
    whole = path.read_bytes()
    for size in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:size])
        with Index(tmp_path) as index:
            assert index.entries.keys() == {"a"}
            index.add({**LINE, "id": "b"})
        assert path.read_bytes() == whole


def test_a_damaged_line_is_reported(tmp_path, caplog):
    lines = [json.dumps(LINE), "\0\0\0", '{"id": "c"}', json.dumps({**LINE, "files": [3]})]
    lines.append(json.dumps({**LINE, "id": "d"}))
    (tmp_path / "index.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with Index(tmp_path) as index:
        assert index.entries.keys() == {"a", "d"}
    told = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert told == [f"line {number} is damaged, and left out" for number in (2, 3, 4)]


def test_a_line_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    with Index(tmp_path) as index:
        index.add(LINE)
        before = index.path.read_bytes()
        write = os.write

        def full(descriptor: int, data: bytes) -> int:
            if len(data) < 20:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[:-10])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            index.add({**LINE, "id": "b"})
        monkeypatch.undo()
        assert index.path.read_bytes() == before
        assert index.entries.keys() == {"a"}
        index.add({**LINE, "id": "c"})
    assert ids_of(tmp_path / "index.jsonl") == ["a", "c"]


def test_one_process_writes_an_index(tmp_path):
    with Index(tmp_path), pytest.raises(DatasetError, match="another voxfast batch"):
        Index(tmp_path)
    with Index(tmp_path, (1, 2)), Index(tmp_path, (2, 2)):
        pass


def test_names_that_are_no_unicode(tmp_path):
    with Index(tmp_path) as index:
        index.add({**LINE, "id": "x\udcff/日本"})
    assert "日本".encode() in (tmp_path / "index.jsonl").read_bytes()
    with Index(tmp_path) as index:
        assert index.entries.keys() == {"x\udcff/日本"}


# Results


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "talk.srt"
    files.write_whole(path, "first")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        files.write_whole(path, "second")
    assert [file.name for file in path.parent.iterdir()] == ["talk.srt"]
    assert path.read_text() == "first"


# A job


def test_a_job_does_what_is_left(pool, tmp_path):
    touch(tmp_path, "in/a.wav", "in/b.wav", "in/c.wav")
    pool.failing = {"in/b.wav"}
    state = transcribe_files(["in"], "out", model="m")
    assert (state.recordings, state.done, state.failed) == (3, 3, 1)
    assert state.has_failures
    assert (tmp_path / "out/in/a.wav.json").read_text() == "in/a.wav"
    assert sorted(ids_of(tmp_path / "out/index.jsonl")) == ["in/a.wav", "in/b.wav", "in/c.wav"]
    pool.given.clear()

    state = transcribe_files(["in"], "out", model="m")
    assert (state.done, state.earlier, state.earlier_failed) == (0, 2, 1)
    assert state.has_failures
    assert pool.given == []

    (tmp_path / "out/in/c.wav.json").unlink()
    touch(tmp_path, "in/d.wav")
    transcribe_files(["in"], "out", model="m")
    assert sorted(pool.given) == ["in/c.wav", "in/d.wav"]

    pool.given.clear()
    pool.failing.clear()
    state = transcribe_files(["in"], "out", model="m", retry=True)
    assert pool.given == ["in/b.wav"]
    assert not state.has_failures
    assert pool.is_closed


def test_another_format_is_missing(pool, tmp_path):
    touch(tmp_path, "a.wav")
    transcribe_files(["a.wav"], "out")
    pool.suffixes = ("txt",)
    assert transcribe_files(["a.wav"], "out", formats=["txt"]).done == 1
    assert lines_of(tmp_path / "out/index.jsonl")[-1]["files"] == ["a.wav.json", "a.wav.txt"]
    assert transcribe_files(["a.wav"], "out", formats=["json", "txt"]).earlier == 1
    (tmp_path / "out/a.wav.json").unlink()
    transcribe_files(["a.wav"], "out", formats=["srt"])
    assert lines_of(tmp_path / "out/index.jsonl")[-1]["files"] == ["a.wav.txt"]


def test_formats_of_two_shards_are_all_there(pool, tmp_path):
    touch(tmp_path, "a.wav")
    transcribe_files(["a.wav"], "out", shard=(1, 1))
    pool.suffixes = ("txt",)
    transcribe_files(["a.wav"], "out", formats=["txt"])
    assert transcribe_files(["a.wav"], "out", formats=["json", "txt"], shard=(1, 1)).earlier == 1


def test_what_a_failure_left_behind_is_not_complete(pool, tmp_path):
    """A partial transcript in a format that the next attempt did not write."""
    touch(tmp_path, "a.wav")
    pool.cut = {"a.wav"}
    assert transcribe_files(["a.wav"], "out").failed == 1
    assert (tmp_path / "out/a.wav.json").read_text() == "a part"
    pool.cut.clear()
    pool.suffixes = ("srt",)
    options = {"retry": True, "delay_ms": 960}
    assert transcribe_files(["a.wav"], "out", formats=["srt"], **options).failed == 0
    assert lines_of(tmp_path / "out/index.jsonl")[-1]["files"] == ["a.wav.srt"]
    pool.suffixes = ("json",)
    state = transcribe_files(["a.wav"], "out", delay_ms=960)
    assert (state.done, state.earlier) == (1, 0)
    assert (tmp_path / "out/a.wav.json").read_text() == "a.wav"
    assert transcribe_files(["a.wav"], "out", formats=["srt"], delay_ms=960).earlier == 1


def test_a_failure_takes_no_files_over(pool, tmp_path):
    touch(tmp_path, "a.wav")
    transcribe_files(["a.wav"], "out")
    pool.failing = {"a.wav"}
    pool.suffixes = ("srt",)
    transcribe_files(["a.wav"], "out", formats=["srt"])
    assert lines_of(tmp_path / "out/index.jsonl")[-1]["files"] == []
    pool.failing.clear()
    transcribe_files(["a.wav"], "out", formats=["srt"], retry=True)
    assert lines_of(tmp_path / "out/index.jsonl")[-1]["files"] == ["a.wav.srt"]


def test_results_of_other_settings_are_not_mixed(pool, tmp_path):
    touch(tmp_path, "a.wav")
    transcribe_files(["a.wav"], "out", model="m", delay_ms=480)
    assert transcribe_files(["a.wav"], "out", model="m", delay_ms=480).earlier == 1
    for other, words in [
        ({"model": "n", "delay_ms": 480}, "the model was m and is n"),
        ({"model": "m"}, "delay_ms was 480 and is not given"),
        (
            {"model": "m", "dtype": "x", "delay_ms": 960},
            "delay_ms was 480 and is 960, dtype was not given and is x",
        ),
    ]:
        with pytest.raises(InvalidOptionError) as raised:
            transcribe_files(["a.wav"], "out", **other)
        assert str(raised.value) == (
            f"out has 'a.wav' with other options: {words}; repeat the earlier ones, or name "
            f"another folder"
        )


def test_other_ids_of_the_same_files_are_told(pool, tmp_path, caplog):
    touch(tmp_path, "in/a.wav", "in/b.wav", "in/c.wav")
    transcribe_files(["in/a.wav", "in/b.wav"], "out")
    transcribe_files(["in"], "out")
    assert caplog.messages == []
    transcribe_files([tmp_path / "in"], "out")
    (told,) = caplog.messages
    first = f"{tmp_path}/in/a.wav"[1:]
    assert told.startswith("3 of the recordings are in the index by other ids, and are transcribed")
    assert f"{first!r} is 'in/a.wav' there" in told
    # Two recordings may be of one file: two channels, for one.
    (tmp_path / "list.csv").write_text("path,id\nin/a.wav,in/a.wav\nin/a.wav,other\n")
    caplog.clear()
    pool.given.clear()
    transcribe_files(["list.csv"], "out2")
    transcribe_files(["list.csv", "in/b.wav"], "out2")
    assert caplog.messages == []


def test_a_failed_recording_may_have_other_options_the_next_time(pool, tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    pool.failing = {"a.wav"}
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,delay_ms\na.wav,7\nb.wav,480\n")
    assert transcribe_files([manifest], "out").failed == 1
    manifest.write_text("path,delay_ms\na.wav,480\nb.wav,480\n")
    with pytest.raises(InvalidOptionError, match=r"or take what failed again \(--retry"):
        transcribe_files([manifest], "out")
    pool.failing.clear()
    state = transcribe_files([manifest], "out", retry=True)
    assert (state.done, state.failed, state.earlier) == (1, 0, 1)


def test_a_long_vocabulary_makes_no_long_lines(pool, tmp_path):
    touch(tmp_path, "a.wav")
    phrases = [f"phrase {number}" for number in range(1000)]
    transcribe_files(["a.wav"], "out", vocabulary=phrases)
    (line,) = lines_of(tmp_path / "out/index.jsonl")
    assert line["options"]["vocabulary"].startswith("1000 phrases, SHA-256 ")
    assert len(json.dumps(line)) < 500
    same = [(phrase, 4.0) for phrase in reversed(phrases)]
    assert transcribe_files(["a.wav"], "out", vocabulary=same).earlier == 1
    with pytest.raises(InvalidOptionError, match="999 phrases"):
        transcribe_files(["a.wav"], "out", vocabulary=phrases[1:])


def test_workers_are_of_this_machine(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(InvalidOptionError, match="with a cluster, say its actors"):
        transcribe_files([tmp_path / "a.wav"], tmp_path / "out", workers=2, cluster=Cluster())


def test_a_model_in_a_folder_is_found_from_everywhere(pool, tmp_path):
    touch(tmp_path, "a.wav", "models/m/config.json", "voxtral-numbers/config.json")
    transcribe_files(["a.wav"], "out", model="models/m")
    assert lines_of(tmp_path / "out/index.jsonl")[0]["model"] == str(tmp_path / "models/m")
    transcribe_files(["a.wav"], "embedded")
    assert lines_of(tmp_path / "embedded/index.jsonl")[0]["model"] == "voxtral-numbers"


def test_workers_that_end_are_given_up_after_a_while(pool, tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    pool.lost = Counter({"a.wav": 2, "b.wav": 3})
    state = transcribe_files(["a.wav", "b.wav", "c.wav"], "out")
    assert (state.done, state.failed) == (3, 1)
    errors = {line["id"]: line["error"] for line in lines_of(tmp_path / "out/index.jsonl")}
    assert errors == {
        "a.wav": None,
        "b.wav": "its worker was lost; tried 3 times",
        "c.wav": None,
    }
    assert Counter(pool.given) == {"a.wav": 3, "b.wav": 3, "c.wav": 1}


def test_options_that_are_no_json(pool, tmp_path):
    touch(tmp_path, "a.wav")
    for _ in range(2):
        state = transcribe_files(["a.wav"], "out", block_ms=float("nan"), tuning=Path("x"))
    assert state.earlier == 1
    assert lines_of(tmp_path / "out/index.jsonl")[0]["options"] == {
        "block_ms": "NaN",
        "tuning": repr(Path("x")),
    }


def test_limit(pool, tmp_path):
    touch(tmp_path, "in/a.wav", "in/b.wav", "in/c.wav")
    assert transcribe_files(["in"], "out", limit=2).done == 2
    assert transcribe_files(["in"], "out", limit=2).done == 1
    assert len(ids_of(tmp_path / "out/index.jsonl")) == 3


def test_shards_of_one_folder(pool, tmp_path):
    touch(tmp_path, *(f"in/{i}.wav" for i in range(20)))
    done = [transcribe_files(["in"], "out", shard=(i, 3)).done for i in (1, 2, 3)]
    assert sum(done) == len(pool.given) == len(set(pool.given)) == 20
    assert transcribe_files(["in"], "out").earlier == 20
    assert {path.name for path in (tmp_path / "out").glob("index*")} == {
        "index.jsonl",
        *(f"index.{i}-of-3.jsonl" for i in (1, 2, 3)),
    }


def test_what_succeeded_in_one_shard_holds(pool, tmp_path):
    touch(tmp_path, "a.wav")
    pool.failing = {"a.wav"}
    transcribe_files(["a.wav"], "out", shard=(1, 1))
    pool.failing.clear()
    transcribe_files(["a.wav"], "out", retry=True)
    assert transcribe_files(["a.wav"], "out", shard=(1, 1), retry=True).earlier == 1


def test_large_recordings_are_first(pool, tmp_path):
    for i, name in enumerate(["a.wav", "b.wav", "c.wav"]):
        (tmp_path / name).write_bytes(bytes(10 * i))
    seen: list[Progress] = []
    pool.size = 1
    transcribe_files(["a.wav", "b.wav", "c.wav"], "out", progress=seen.append)
    assert pool.given == ["c.wav", "b.wav", "a.wav"]
    shares = [state.share for state in seen]
    assert shares == pytest.approx([0, 20 / 31, 30 / 31, 1])


def test_a_full_disk_ends_the_job(pool, tmp_path, monkeypatch):
    touch(tmp_path, "a.wav")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        transcribe_files(["a.wav"], "out")
    assert (tmp_path / "out/index.jsonl").read_text() == ""
    assert pool.is_closed


def test_a_name_that_cannot_be_is_a_failure(pool, tmp_path):
    touch(tmp_path, "in/a.wav", "b.wav", "out/in")
    state = transcribe_files(["in", "b.wav"], "out")
    assert (state.done, state.failed) == (2, 1)
    errors = {line["id"]: line["error"] for line in lines_of(tmp_path / "out/index.jsonl")}
    assert "cannot be written" in errors["in/a.wav"]
    assert errors["b.wav"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"limit": 0},
        {"attempts": 0},
        {"shard": (3, 2)},
        {"formats": ["doc"]},
        {"formats": []},
        {"formats": "json"},
        {"endpoint_ms": 3},
        {"endpoint_ms": float("nan")},
        {"endpoint_ms": "500"},
        {"channel": "each"},
    ],
)
def test_numbers_that_cannot_be(tmp_path, options):
    touch(tmp_path, "a.wav")
    with pytest.raises(InvalidOptionError):
        transcribe_files([tmp_path / "a.wav"], tmp_path / "out", **options)
    with pytest.raises(InvalidOptionError):
        Cluster(actors=(2, 1))


@pytest.mark.parametrize("shard", ["1/2", (1,), (0, 2), (1.0, 2), (True, 2), 1])
def test_shards_that_are_none(tmp_path, shard):
    touch(tmp_path, "a.wav")
    with pytest.raises(InvalidOptionError, match=r"two numbers such as \(2, 8\)"):
        transcribe_files([tmp_path / "a.wav"], tmp_path / "out", shard=shard)


def test_progress():
    state = Progress(10, 2, 1, 7, 2, 1, share=0.25, audio_seconds=60, elapsed_seconds=4)
    assert state.speed == 15
    assert state.seconds_left == 12
    assert replace(state, elapsed_seconds=9, startup_seconds=5).seconds_left == 12
    assert Progress(chosen=5).seconds_left is None


@pytest.mark.parametrize(("free", "workers"), [(1e12, 8), (3e9, 4), (0, 1)])
def test_workers_as_memory_allows(monkeypatch, on_the_cpu, free, workers):
    monkeypatch.setattr(processes, "processors", lambda: 8)
    monkeypatch.setattr(processes, "_free_memory", lambda: free)
    assert processes.sensible_workers(weights=200_000_000) == workers
    monkeypatch.undo()
    assert 1 <= processes.sensible_workers(0) <= processes.processors()


# The command


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
