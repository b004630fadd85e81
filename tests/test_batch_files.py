"""Archives: the index, files, and what a job makes of the results of its workers."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from archive import touch
from fake_pool import FakePool, ids_of, lines_of

from voxfast.batch import Cluster, Progress, files, job, processes, transcribe_files
from voxfast.batch.index import Index
from voxfast.batch.pools import Loss
from voxfast.batch.transcriber import Result
from voxfast.errors import DatasetError, InvalidOptionError
from voxfast.models.vocabulary import DEFAULT_WEIGHT


@pytest.fixture
def pool(monkeypatch, tmp_path) -> FakePool:
    return FakePool.installed(monkeypatch, tmp_path)


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
    same = [(phrase, DEFAULT_WEIGHT) for phrase in reversed(phrases)]
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


def test_time_counts_from_the_call(pool, tmp_path, monkeypatch):
    """What is left is estimated without the start."""
    touch(tmp_path, "a.wav", "b.wav")
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: clock.now))
    wait = pool.wait

    def start(*_: object) -> FakePool:
        clock.now += 30
        return pool

    def work() -> list[Result | Loss]:
        clock.now += 4
        return wait()

    monkeypatch.setattr(job, "_pool", start)
    pool.wait = work
    seen: list[Progress] = []
    transcribe_files(["a.wav", "b.wav"], "out", progress=seen.append)
    assert [state.elapsed_seconds for state in seen] == [0, 34, 38]
    assert [state.startup_seconds for state in seen] == [30, 30, 30]
    assert [state.seconds_left for state in seen] == [None, 4, 0]


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
        {"channel": 0},
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
