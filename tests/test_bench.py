"""The benchmark: data sets, figures by hand, interruptions, and the embedded model."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from evaluation import EVAL_FOLDER, QWEN_FOLDER, EvalItem
from fakes import FakeModel, FakeSession

import voxfast
from voxfast import cli
from voxfast.bench.dataset import Clip, Stream, fingerprint, load_dataset, streams
from voxfast.bench.journal import Run, load_runs
from voxfast.bench.measure import measure
from voxfast.bench.summary import label, latencies, summarise
from voxfast.errors import DatasetError
from voxfast.timed import Word


def write_clips(folder: Path, lengths: dict[str, float], **entry: Any) -> Path:
    """Silent clips, and a manifest that says the fake model's words are in them."""
    items = []
    for name, seconds in lengths.items():
        soundfile.write(folder / f"{name}.wav", np.zeros(int(seconds * 16000)), 16000)
        words = [f"w{i + 1}" for i in range(int(seconds / 0.5))]
        items.append({"file": f"{name}.wav", "text": " ".join([*words, "end"]), **entry})
    manifest = folder / "clips.json"
    manifest.write_text(json.dumps(items))
    return manifest


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr(voxfast, "load", model.load)
    return model


# -- data sets


def test_librispeech_layout(tmp_path: Path) -> None:
    for speaker, chapter in (("84", "121123"), ("174", "50561")):
        folder = tmp_path / "test-clean" / speaker / chapter
        folder.mkdir(parents=True)
        names = [f"{speaker}-{chapter}-000{i}" for i in range(2)]
        for name in names:
            soundfile.write(folder / f"{name}.flac", np.zeros(8000), 16000)
        lines = "".join(f"{name} GO ON\n" for name in names)
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(lines)
    clips = load_dataset(tmp_path)
    assert [clip.name for clip in clips][:2] == ["174-50561-0000", "174-50561-0001"]
    assert {clip.text for clip in clips} == {"GO ON"}
    chapters = streams(clips, "chapter")
    assert [(s.name, len(s.clips), s.text) for s in chapters] == [
        ("174-50561", 2, "GO ON GO ON"),
        ("84-121123", 2, "GO ON GO ON"),
    ]
    assert len(streams(clips, "single")) == 4
    assert load_dataset(tmp_path, limit=3) == clips[:3]


def test_manifest_and_times_in_a_chapter(tmp_path: Path) -> None:
    manifest = write_clips(
        tmp_path, {"a": 1.0, "b": 2.0}, words=[{"word": "x", "start": 0.25, "end": 0.5}]
    )
    (stream,) = streams(load_dataset(manifest), "chapter")
    samples, words = stream.load()
    assert len(samples) == 16000 * (1 + 2) + 8000
    assert words == (Word("x", 0.25, 0.5), Word("x", 1.75, 2.0))
    lines = "\n".join(json.dumps(entry) for entry in json.loads(manifest.read_text()))
    (tmp_path / "clips.jsonl").write_text(lines)
    assert [clip.words for clip in load_dataset(tmp_path / "clips.jsonl")] == [words[:1]] * 2


def test_the_fingerprint_sees_every_change(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path, {"a": 1.0})
    before = fingerprint(load_dataset(manifest))
    assert fingerprint(load_dataset(manifest)) == before
    manifest.write_text(manifest.read_text().replace("w1", "w9"))
    assert fingerprint(load_dataset(manifest)) != before


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is no manifest"),
        ("3", "no list but int"),
        ("[" * 100_000, "is no manifest"),
        ('{"clips": []}', "is no manifest of clips: it has no 'items'"),
        ("[]", "holds no clips"),
        ('[{"text": "a"}]', "needs one of file, audio"),
        ('[{"file": "no.wav", "text": "a"}]', "no.wav"),
        ('[{"file": "a.wav"}]', "needs one of text"),
        ('[{"file": "a.wav", "text": "a"}, {"file": "a.wav", "text": "b"}]', "two clips"),
        ('[{"file": "a.wav", "text": "a", "words": [{"word": "a"}]}]', "no word with start"),
        (
            '[{"file": "a.wav", "text": "a", "words": [{"word": "a", "start": 2, "end": 1}]}]',
            "ends before",
        ),
        ('[{"file": "a.wav", "text": "a", "words": 3}]', "no list but 3"),
        ('[{"file": "a.wav", "text": "a", "words": [3]}]', "3 is no word"),
        ('[{"file": "a.wav", "text": "a", "words": [{"start": 0, "end": 1}]}]', "is no word"),
        (
            f'[{{"file": "a.wav", "text": "a", "words": [{{"word": "a", "start": {10**400}}}]}}]',
            "is no word",
        ),
        (r'[{"file": "a.wav", "text": "\ud800"}]', "clips.json, entry 0 holds what is no text"),
    ],
)
def test_data_sets_that_cannot_be(tmp_path: Path, manifest: str, message: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    (tmp_path / "clips.json").write_text(manifest)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_a_transcript_without_audio(tmp_path: Path) -> None:
    (tmp_path / "1-2.trans.txt").write_text("1-2-0000 GO\n")
    with pytest.raises(DatasetError, match="1-2-0000"):
        load_dataset(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["*", "**", "a**", "/etc/x", "..", "n" * 300, "\0"])
def test_names_that_no_audio_file_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "1-2.trans.txt").write_text(f"{name} GO\n")
    with pytest.raises(DatasetError, match="no audio file"):
        load_dataset(tmp_path)
    (tmp_path / "clips.json").write_text(json.dumps([{"file": f"{name}.wav", "text": "go"}]))
    with pytest.raises(DatasetError, match="there is no file"):
        load_dataset(tmp_path / "clips.json")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    for name in ("clips.json", "1-2.trans.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe")
        with pytest.raises(DatasetError, match=name):
            load_dataset(tmp_path if name.endswith("txt") else tmp_path / name)


# -- figures by hand


def clocked(path: Path, truth: tuple[Word, ...] | None, *, chunk_ms: int | None) -> Run:
    """Two seconds through the fake model; every reading of the clock is 0.1 s later."""
    soundfile.write(path, np.zeros(32000), 16000)
    ticks = iter(np.arange(0, 1e4, 0.1))
    stream = Stream("a", (Clip("a", path, "w1 w2 x w4 w5", "c", truth),))
    record = measure(FakeModel(), stream, chunk_ms=chunk_ms, now=lambda: float(next(ticks)))  # type: ignore[arg-type]
    return Run({"chunk_ms": chunk_ms}, {"name": "owner/fake"}, {"machine": {}}, [record])


def test_latency_and_speed(tmp_path: Path) -> None:
    run = clocked(tmp_path / "a.wav", None, chunk_ms=800)
    (record,) = run.records
    # Chunks end at 0.8, 1.6 and 2.0 s, each takes 0.1 s; so does the end.
    assert record.compute_seconds == pytest.approx(0.4)
    assert record.hypothesis == "w1 w2 w3 w4 end"
    assert [word.fed for word in record.words] == [0.8, 1.6, 1.6, 2.0, None]
    assert latencies(run.records, aware=False) == pytest.approx([0.3, 0.6, 0.1, 0.0])
    assert latencies(run.records, aware=True) == pytest.approx([0.4, 0.7, 0.2, 0.1])
    found = summarise(run)
    assert found["real_time_factor"] == pytest.approx(0.2)
    assert found["word_error_rate"] == pytest.approx(2 / 5)
    assert found["per_utterance"]["without_error"] == 0
    assert found["worst"][0]["hypothesis"] == "w1 w2 w3 w4 end"
    assert found["word_times"] is None
    assert found["latency"]["ends"] == "the model's"
    assert [step.second for step in record.steps] == [1.6, 2.0]
    assert record.steps[0].mean_ms == pytest.approx(100)


def test_a_slow_model_falls_behind(tmp_path: Path) -> None:
    run = clocked(tmp_path / "a.wav", None, chunk_ms=50)
    # A chunk of 50 ms takes 100: word n, at 500 n ms, has waited for all chunks until then.
    assert latencies(run.records, aware=True) == pytest.approx([0.55, 1.05, 1.55, 2.05])


def test_known_times(tmp_path: Path) -> None:
    truth = (Word("W1", 0.1, 0.4), Word("w2", 0.5, 1.0), Word("x", 1.0, 1.5))
    run = clocked(tmp_path / "a.wav", truth, chunk_ms=800)
    assert latencies(run.records, aware=False) == pytest.approx([0.4, 0.6])
    found = summarise(run)
    assert found["latency"]["ends"] == "true"
    assert found["word_times"]["words"] == 2
    assert found["word_times"]["end"]["mean_absolute"] == pytest.approx(0.05)
    assert found["word_times"]["start"]["bias"] == pytest.approx(-0.05)


def test_everything_at_once_has_no_latency(tmp_path: Path) -> None:
    found = summarise(clocked(tmp_path / "a.wav", None, chunk_ms=None))
    assert found["latency"] is found["step_ms"] is None
    assert found["real_time_factor"] == pytest.approx(0.1)


def test_labels_say_what_differs() -> None:
    setting = {"machine": {"processor": "m"}}
    a = Run({"delay_ms": 480, "mode": "single", "chunk_ms": None}, {"name": "o/v"}, setting)
    b = Run({"delay_ms": 240, "mode": "single", "chunk_ms": 80}, {"name": "o/v"}, setting)
    assert [label(run, (a, b)) for run in (a, b)] == ["v, 480 ms delay", "v, 240 ms delay"]
    c = Run({"delay_ms": None, "mode": "single", "chunk_ms": None}, {"name": "p/v"}, setting)
    assert [label(run, (a, c)) for run in (a, c)] == ["o/v, 480 ms delay", "p/v"]
    machines = [{"processor": "m", "threads": threads, "kernels": "avx2"} for threads in (1, 2)]
    runs = [
        Run({}, {"name": "v"}, {"machine": machine, "dataset": {"name": "d", "clips": clips}})
        for machine, clips in zip(machines, (7, 1), strict=True)
    ]
    assert [label(run, runs) for run in runs] == ["v, 7 clips, 1 thread", "v, 1 clip, 2 threads"]


# -- the command


def deterministic(path: Path) -> list[Any]:
    """What a benchmark must find again, whenever it is repeated."""
    return [
        (
            run.options,
            run.model,
            run.setting,
            [(r.name, r.reference, r.hypothesis, len(r.steps)) for r in run.records],
            [[(w.text, w.start, w.end, w.fed) for w in r.words] for r in run.records],
            summarise(run)["per_utterance"],
            summarise(run)["latency"]["unaware"],
        )
        for run in load_runs(path)
    ]


def test_interrupted_and_resumed(fake: FakeModel, tmp_path: Path) -> None:
    data = write_clips(tmp_path, {"a": 1.0, "b": 2.0, "c": 1.5, "d": 0.7})
    command = ["bench", str(data), "--delay-ms", "240", "--delay-ms", "480", "-q", "-o"]
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    assert cli.main([*command, str(whole)]) == 0

    def interrupt(session: FakeSession) -> None:
        if fake.streamed - before == 4 and session.heard > 0.5:
            raise KeyboardInterrupt

    fake.on_feed = interrupt
    journal = tmp_path / "parts.json.part"
    for _ in range(2):  # each time after three streams of eight
        before = fake.streamed
        assert cli.main([*command, str(parts)]) == 130
        assert not parts.exists()
        with journal.open("a") as file:
            file.write('{"run": 1, "rec')  # as a crash would leave it
    before = fake.streamed
    assert cli.main([*command, str(parts)]) == 0
    assert fake.streamed - before == 2
    assert not journal.exists()
    assert deterministic(parts) == deterministic(whole)


def test_running_figures_are_shown(
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    data = write_clips(tmp_path, {"a": 1.0, "b": 0.4})
    data.write_text(data.read_text().replace("w1", "x1"))
    assert cli.main(["bench", str(data)]) == 0
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "WER 25.00 %" in shown


def test_other_options_do_not_resume(
    fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path, {"a": 1.0, "b": 1.0})
    output = tmp_path / "out.json"
    first = 1

    def interrupt(session: FakeSession) -> None:
        if fake.streamed > first:
            raise KeyboardInterrupt

    fake.on_feed = interrupt
    command = ["bench", str(data), "-q", "-o", str(output)]
    assert cli.main(command) == 130
    assert cli.main([*command, "--chunk-ms", "160"]) == 1
    assert "options chunk_ms was 80, not 160" in capsys.readouterr().err
    # What holds no stream yet is in nobody's way.
    (tmp_path / "out.json.part").unlink()
    first = 0
    assert cli.main(command) == 130
    assert not list(tmp_path.glob("out.json*"))


def test_what_is_bound_to_fail_is_known_before_anything_is_measured(
    fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path, {"a": 1.0, "b": 1.0})
    models = [str(tmp_path / name) for name in ("one", "two")]
    command = ["bench", str(data), "-o", str(tmp_path / "out.json")]
    for model in models:
        Path(model).mkdir()
        command += ["--model", model]
    delays = ["--delay-ms", "80", "--delay-ms", "81"]
    assert cli.main([*command, *delays]) == 2
    assert "a delay of 81 ms" in capsys.readouterr().err
    assert fake.streamed == 0
    assert not list(tmp_path.glob("out.json*"))
    del fake.loads[:]
    sound = (tmp_path / "b.wav").read_bytes()
    (tmp_path / "b.wav").write_text("no audio")
    assert cli.main([*command, *delays[:2]]) == 1
    assert "b.wav is text, not audio" in capsys.readouterr().err
    assert fake.streamed == len(fake.loads) == 0
    (tmp_path / "b.wav").write_bytes(sound)
    assert cli.main([*command, *delays[:2]]) == 0
    assert [name for name, _ in fake.loads] == [*models[::-1], models[1]]
    assert capsys.readouterr().err.count(fake.description) == 2


def test_two_benchmarks_do_not_write_to_one_file(
    fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path, {"a": 1.0})
    command = ["bench", str(data), "-q", "-o", str(tmp_path / "out.json")]
    inner = []

    def again(session: FakeSession) -> None:
        fake.on_feed = None
        inner.append(cli.main(command))

    fake.on_feed = again
    assert cli.main(command) == 0
    assert inner == [1]
    assert "out.json.part is being written by another voxfast bench" in capsys.readouterr().err
    assert len(load_runs(tmp_path / "out.json")[0].records) == 1


def test_results_are_found_again_and_never_replaced(
    fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path, {"a": 1.0, "b": 1.0})
    output = tmp_path / "out.json"
    command = ["bench", str(data), "-o"]
    assert cli.main([*command, str(output)]) == 0
    table = capsys.readouterr().out
    before, heard = output.read_bytes(), fake.streamed
    assert cli.main([*command, str(output)]) == 0
    out, err = capsys.readouterr()
    assert out == table
    assert "2 of 2 streams were done before" in err
    assert fake.streamed == heard
    for others in (["--chunk-ms", "160"], ["--delay-ms", "240", "--delay-ms", "480"]):
        assert cli.main([*command, str(output), *others]) == 1
        assert "name another file as --output, or delete this one" in capsys.readouterr().err
    assert cli.main([*command, str(data)]) == 1
    assert f"{data} holds no results" in capsys.readouterr().err
    assert fake.streamed == heard
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.wav",
        "b.wav",
        "clips.json",
        "out.json",
    ]


def test_interrupt_while_figures_are_drawn(
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_clips(tmp_path, {"a": 1.0})
    output, figures = tmp_path / "out.json", tmp_path / "figures"
    command = ["bench", str(data), "-o", str(output), "--figures", str(figures)]

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("voxfast.bench.figures.draw", interrupt)
        assert cli.main(command) == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command draws again\n")
    assert len(load_runs(output)[0].records) == fake.streamed == 1
    assert cli.main(command) == 0
    assert fake.streamed == 1
    assert (figures / "latency.png").exists()


@pytest.mark.parametrize(
    ("seconds", "unit"), [(7.0, "seconds of audio"), (150.0, "minutes of audio")]
)
def test_figures_say_how_much_was_measured(
    fake: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, unit: str
) -> None:
    from matplotlib.figure import Figure

    shown: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: shown.update({path.stem: self}))
    monkeypatch.setattr("voxfast._native._ext.num_threads", lambda: 1)
    data = write_clips(tmp_path, {"a": seconds, "b": 0.7})
    assert cli.main(["bench", str(data), "--figures", str(tmp_path), "-q"]) == 0
    assert shown["stream"].axes[1].get_xlabel() == unit
    last = shown["stream"].axes[1].lines[0].get_xdata()[-1]
    assert last == pytest.approx((seconds + 0.7) / (60 if "minutes" in unit else 1))
    words = int(seconds / 0.5) + 1 + 2
    for figure in shown.values():
        note = figure.legends[0].get_title().get_text()
        assert f"(2 streams, {words} words) on " in note
        assert note.partition("\n")[0].endswith(", 1 thread")


def test_figures_have_room_for_many_runs(
    fake: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    shown: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: shown.append(self))
    data = write_clips(tmp_path, {"a": 1.0, "b": 1.0})
    data = data.rename(tmp_path / f"{'long_name' * 9}.json")
    command = ["bench", str(data), "--figures", str(tmp_path), "--peers", "-q"]
    for delay in range(80, 960, 80):
        command += ["--delay-ms", str(delay)]
    assert cli.main([*command, "--chunk-ms", "80", "--mode", "chapter", "--mode", "utterance"]) == 0
    assert len(shown) == 3
    for figure in shown:
        figure.draw_without_rendering()
        legend, whole = figure.legends[0].get_window_extent(), figure.bbox
        assert whole.x0 <= legend.x0 < legend.x1 <= whole.x1
        assert whole.y0 <= legend.y0 < legend.y1
        for axes in figure.axes:
            assert axes.get_window_extent().y0 > legend.y1
            assert axes.get_window_extent().height > 150


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((), []),
        (("format",), "other"),
        (("runs",), 3),
        (("runs", 0, "records"), None),
        (("runs", 0, "options"), {}),
        (("runs", 0, "setting", "machine"), 1),
        (("runs", 0, "setting", "versions"), 1),
        (("runs", 0, "records", 0), "x"),
        (("runs", 0, "records", 0, "seconds"), "x"),
        (("runs", 0, "records", 0, "reference"), 1),
        (("runs", 0, "records", 0, "words", 0), 1),
        (("runs", 0, "records", 0, "words", 0, "end"), float("nan")),
        (("runs", 0, "records", 0, "steps", 0, "mean_ms"), None),
        (("runs", 0, "records", 0, "steps", 0, "more"), 1),
    ],
)
def test_results_that_cannot_be(
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    place: tuple[str | int, ...],
    value: Any,
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    assert cli.main(["bench", str(write_clips(tmp_path, {"a": 1.0})), "-q", "-o", str(good)]) == 0
    document = json.loads(good.read_text())
    at = document
    for key in place[:-1]:
        at = at[key]
    if place:
        at[place[-1]] = value
    bad.write_text(json.dumps(document if place else value))
    capsys.readouterr()
    assert cli.main(["bench", "--compare", str(good), str(bad)]) == 1
    assert f"{bad} holds no results of voxfast bench: " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"run": 9, "record": {}}', '{"run": 0}'])
def test_a_damaged_journal(
    fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    data = write_clips(tmp_path, {"a": 1.0, "b": 1.0})

    def interrupt(session: FakeSession) -> None:
        if fake.streamed > 1:
            raise KeyboardInterrupt

    fake.on_feed = interrupt
    command = ["bench", str(data), "-o", str(tmp_path / "out.json")]
    assert cli.main(command) == 130
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err
    with (tmp_path / "out.json.part").open("a") as file:
        file.write(f"{line}\n")
    assert cli.main(command) == 1
    assert "out.json.part is damaged: " in capsys.readouterr().err


def test_bad_use(fake: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench"]) == 2
    assert cli.main(["bench", str(tmp_path / "none")]) == 1
    (tmp_path / "x.json").write_text('{"format": "other"}')
    assert cli.main(["bench", "--compare", str(tmp_path / "x.json")]) == 1
    assert "no results of voxfast bench" in capsys.readouterr().err
    assert cli.main(["bench", "--compare", str(tmp_path / "y.json")]) == 1
    assert "y.json cannot be read: No such file" in capsys.readouterr().err
    data = write_clips(tmp_path, {"a": 1.0})
    assert cli.main(["bench", str(data), "-o", str(tmp_path)]) == 1
    assert f"{tmp_path} cannot be read: Is a directory; name another" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jiwer", None)
    assert cli.main(["bench", str(write_clips(tmp_path, {"a": 1.0}))]) == 1
    assert 'pip install "voxfast[bench]"' in capsys.readouterr().err


# Speech across pauses is harder for the small Qwen3-ASR than single clips.
@pytest.mark.parametrize(("model", "chapter"), [("voxtral-numbers", 0), (str(QWEN_FOLDER), 0.3)])
def test_all_modes_on_the_small_models(
    model: str,
    chapter: float,
    eval_items: list[EvalItem],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "set" / "1" / "2"
    folder.mkdir(parents=True)
    lines = []
    for i, item in enumerate(eval_items[:3]):
        shutil.copy(EVAL_FOLDER / f"{item.name}.flac", folder / f"1-2-000{i}.flac")
        lines.append(f"1-2-000{i} {item.transcript.upper()}\n")
    (folder / "1-2.trans.txt").write_text("".join(lines))
    output, figures = tmp_path / "out.json", tmp_path / "figures"
    modes = [f"--mode={mode}" for mode in ("utterance", "single", "chapter")]
    command = ["bench", str(tmp_path / "set"), "--model", model, *modes, "-o", str(output)]
    assert cli.main([*command, "--chunk-ms", "320", "-q"]) == 0
    runs = load_runs(output)
    assert [run.options["mode"] for run in runs] == ["utterance", "single", "chapter"]
    assert [summarise(run)["word_error_rate"] for run in runs[:2]] == [0, 0]
    assert [summarise(run)["per_utterance"]["without_error"] for run in runs[:2]] == [1, 1]
    assert summarise(runs[2])["word_error_rate"] <= chapter
    assert [len(run.records) for run in runs] == [3, 3, 1]
    assert [r.hypothesis for r in runs[0].records] == [r.hypothesis for r in runs[1].records]
    document = json.loads(output.read_text())
    assert document["runs"][0]["setting"]["versions"]["mlx"]
    assert document["runs"][0]["summary"]["streams"] == 3
    capsys.readouterr()
    command = ["bench", "--compare", str(output), "--figures", str(figures), "--peers"]
    assert cli.main(command) == 0
    assert f"{Path(model).name}, chapter" in capsys.readouterr().out
    assert {path.name for path in figures.iterdir()} == {
        "error_rate.png",
        "latency.png",
        "stream.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.iterdir())


# -- benches/draw.py


def test_times_of_ops_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def bench(group: str, median: float, **extra: Any) -> dict[str, Any]:
        return {"group": group, "stats": {"median": median}, "extra_info": extra}

    benchmarks = [
        bench("op, mlx.core.float16", 2e-3, backend="native", roofline=1e-3),
        bench("op, mlx.core.float16", 0.3, backend="composed"),
        bench("only composed", 1.0, backend="composed"),
        bench("a whole step", 1.0, without=0.5),
    ]
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"machine_info": {}, "benchmarks": benchmarks}))
    shown: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: shown.append(self))
    monkeypatch.setattr("sys.argv", ["draw.py", str(times), str(tmp_path / "ops.png")])
    runpy.run_path(str(Path(__file__).parent.parent / "benches" / "draw.py"), run_name="__main__")
    (axes,) = shown[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["op, float16"]
    assert [text.get_text() for text in axes.texts] == ["2 ms, composed 150 ×"]
    assert [dots.get_offsets()[0].tolist() for dots in axes.collections] == [
        [2e-3, 0],
        [0.3, 0],
        [1e-3, 0],
    ]
