"""Archives: inputs, ids, shards, manifests."""

import json
import re
import sys
from pathlib import Path

import pytest
from archive import touch

from voxfast.batch import collect
from voxfast.batch.recordings import Recording, check_together, id_of, in_shard
from voxfast.errors import DatasetError


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a/talk.wav", "b/talk.wav", "b/c/x.MP3", "b/.hidden.wav", "b/.d/y.wav")
    touch(tmp_path, "a/notes.pdf", "b/README", "odd.bin")
    found = collect(["a", "b", "odd.bin"])
    assert list(found.recordings) == ["a/talk.wav", "b/talk.wav", "b/c/x.MP3", "odd.bin"]
    assert found.left_out == {".pdf": 1, "no suffix": 1}
    assert found.recordings["b/talk.wav"].path == str(tmp_path / "b/talk.wav")
    assert collect(["*", "odd.bin"]).left_out == {"folders": 2, ".bin": 1}
    assert set(collect(["**/*.wav"]).recordings) == {"a/talk.wav", "b/talk.wav"}
    assert set(collect(["./a/talk.wav", "a"]).recordings) == {"a/talk.wav"}
    assert collect("a").recordings == collect(Path("a")).recordings == collect(["a"]).recordings
    assert set(collect([tmp_path / "a"]).recordings) == {f"{tmp_path}/a/talk.wav"[1:]}


def test_links_to_folders_are_followed_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "elsewhere/x.wav", "a/y.wav")
    (tmp_path / "a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a/link2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "a")
    assert list(collect(["a"]).recordings) == ["a/y.wav", "a/link/x.wav"]


def test_inputs_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a/talk.wav", "empty/notes.txt")
    gone = Recording("gone.wav", str(tmp_path / "gone.wav"))
    assert collect(["a", "gone.wav"]).recordings["gone.wav"] == gone  # it will fail alone
    for name in ("gone", "gone.wav/", "a.b/"):
        with pytest.raises(DatasetError, match=f"no file or folder {name}"):
            collect(["a", name])
    with pytest.raises(DatasetError, match="no file matches"):
        collect(["*.flac"])
    with pytest.raises(DatasetError, match=r"no recordings in empty, only other files \(\.txt\)"):
        collect(["empty"])
    assert collect(["a", "empty"]).empty == ["empty"]


# Ids


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("talk.wav", "talk.wav"),
        ("./a//b/talk.wav", "a/b/talk.wav"),
        ("/data/talk.wav", "data/talk.wav"),
        ("a/../b/talk.wav", "b/talk.wav"),
        ("s3://bucket/a/talk.wav", "s3/bucket/a/talk.wav"),
        ("https://user:secret@host/talk.wav?token=secret", "https/host/talk.wav"),
    ],
)
def test_id_of_a_path(path, id_):
    assert id_of(path) == id_


def test_id_of_a_path_above(tmp_path, monkeypatch):
    touch(tmp_path, "a/b/x.wav")
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert id_of("../x.wav") == f"{tmp_path}/a/x.wav"[1:]


def test_long_names_have_short_ids_of_their_own():
    first, second = id_of("x" * 249 + "1.wav"), id_of("x" * 249 + "2.wav")
    assert first != second
    assert max(len(first), len(second)) <= 200


@pytest.mark.parametrize(
    "id_",
    ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/.", "a\0b", "x" * 201, "\ud800"],
)
def test_ids_that_lead_elsewhere_are_refused(tmp_path, id_):
    touch(tmp_path, "x.wav")
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "x.wav", "id": id_}) + "\n")
    if id_ == "":  # as if there were none
        assert set(collect([tmp_path / "list.jsonl"]).recordings) == {"x.wav"}
        return
    with pytest.raises(DatasetError, match="line 1: the id"):
        collect([tmp_path / "list.jsonl"])


def test_one_id_for_two_recordings_is_refused(tmp_path):
    touch(tmp_path, "x.wav", "y.wav")
    rows = [{"path": "x.wav", "id": "1"}, {"path": "y.wav", "id": 1}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DatasetError, match=r"the id '1': .*x\.wav and .*y\.wav"):
        collect([tmp_path / "list.jsonl"])
    rows[1] = {**rows[0], "language": "de"}
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DatasetError, match="with other options"):
        collect([tmp_path / "list.jsonl"])


def test_results_do_not_get_into_one_anothers_way():
    check_together(["a", "a.json", "A", "b/c", "index"], ["json", "srt"], folds_case=False)
    with pytest.raises(DatasetError, match="a file and a folder"):
        check_together(["a", "a.srt/b"], ["json", "srt"], folds_case=False)
    with pytest.raises(DatasetError, match="one name on this file system"):
        check_together(["a", "A"], ["json"], folds_case=True)
    with pytest.raises(DatasetError, match="would be the index"):
        check_together(["index.1-of-2"], ["jsonl"], folds_case=False)


def test_shards_are_a_partition():
    ids = [f"{i % 7}/talk {i}.wav" for i in range(2000)]
    for n in (1, 2, 7):
        parts = [{id_ for id_ in ids if in_shard(id_, (i + 1, n))} for i in range(n)]
        assert sum(map(len, parts)) == len(ids)
        assert set().union(*parts) == set(ids)
        assert min(map(len, parts)) > 0.7 * len(ids) / n


# Manifests


def check_manifest(path: Path) -> None:
    found = collect([path])
    assert found.recordings == {
        "one": Recording(
            "one",
            str(path.parent / "a.wav"),
            {"language": "de", "delay_ms": 480, "skip_silence": True, "channel": 2},
        ),
        "b.wav": Recording("b.wav", str(path.parent / "b.wav"), {}),
    }
    assert found.unused == {"speaker"}


def test_json_lines(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text(
        '{"path": "a.wav", "id": "one", "language": "de", "delay_ms": 480, "skip_silence": true, '
        '"channel": 2, "speaker": "x"}\n\n{"audio_filepath": "b.wav", "id": null}\n'
    )
    check_manifest(path)


def test_csv(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        "\ufeffpath,id,language,delay_ms,skip_silence,channel,speaker\r\n"
        '"a.wav",one,de,480,True,2,x\r\nb.wav,,,,,,\r\n'
    )
    check_manifest(path)


def test_vocabularies(tmp_path):
    rows = tmp_path / "list.jsonl"
    rows.write_text('{"path": "a.wav", "vocabulary": ["voxfast", ["Kubernetes", 4.0]]}\n')
    table = tmp_path / "list.csv"
    table.write_text("path,vocabulary\na.wav,voxfast; San Jose ;\n")
    found = [next(iter(collect([path]).recordings.values())) for path in (rows, table)]
    assert found[0].options == {"vocabulary": ["voxfast", ["Kubernetes", 4.0]]}
    assert found[1].options == {"vocabulary": ["voxfast", " San Jose "]}


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "path": ["a.wav", "b.wav"],
        "id": ["one", None],
        "language": ["de", None],
        "delay_ms": [480.0, float("nan")],
        "skip_silence": [True, None],
        "channel": [2, None],
        "speaker": ["x", None],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "list.parquet")
    check_manifest(tmp_path / "list.parquet")
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match="no Parquet file"):
        collect([tmp_path / "list.parquet"])


def test_parquet_without_its_reader(tmp_path, monkeypatch):
    touch(tmp_path, "list.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        collect([tmp_path / "list.parquet"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.jsonl", '{"path": "a.wav"', "line 1, column 17: Expecting ',' delimiter$"),
        ("l.jsonl", '["a.wav"]', "an object is expected"),
        ("l.jsonl", "{}", "a column path, .* or url, and what is in this row is nothing"),
        (
            "l.jsonl",
            '{"path": "a.wav", "url": "b.wav"}',
            r"2 paths \(path, url\)",
        ),
        ("l.jsonl", '{"path": 3}', "no path"),
        ("l.jsonl", '{"path": "a.wav", "id": 1.5}', "neither a text nor a whole number"),
        ("l.jsonl", '{"path": "a.wav", "language": 3}', "language 3 is no text"),
        ("l.jsonl", '{"path": "a.wav", "channel": "each"}', "channel 'each' is no number"),
        ("l.jsonl", '{"path": "a.wav", "channel": 0}', "channel must be"),
        ("l.csv", "path,delay_ms\na.wav,soon\n", "delay_ms 'soon' is no number"),
        ("l.csv", "path,delay_ms\na.wav,1.5\n", "no whole number"),
        ("l.csv", "path,endpoint_ms\na.wav,nan\n", "endpoint_ms 'nan' is no number"),
        ("l.jsonl", '{"path": "a.wav", "endpoint_ms": 1e999}', "endpoint_ms inf is no number"),
        ("l.csv", "path,skip_silence\na.wav,perhaps\n", "neither true nor false"),
        ("l.jsonl", '{"path": "a.wav", "vocabulary": {"a": 1}}', "no list of phrases"),
        ("l.jsonl", '{"path": "a.wav", "vocabulary": ["a", 3]}', r"vocabulary\[1\] must be a text"),
        ("l.csv", "path,endpoint_ms\na.wav,3\n", r"line 2: endpoint_ms 3\.0 is not 32 to 60000"),
        ("l.csv", "path,id\na.wav\n", "not as many"),
        ("l.csv", "name,id\na.wav,1\n", "line 2: there is no path: .* in this row is name, id"),
        ("l.csv", "path;id\na.wav;1\n", "semicolons .* a .csv has commas: save it with commas"),
        ("l.csv", "path\tid\na.wav\t1\n", "save it with commas, or name it .tsv"),
        ("l.tsv", "path,id\na.wav,1\n", "save it with tabs, or name it .csv"),
        ("l.csv", "path,Path\na.wav,b.wav\n", "two columns 'path'"),
        ("l.csv", "path,delayms\na.wav,480\n", "column 'delayms': did you mean delay_ms?"),
        ("l.csv", "path,Delay\na.wav,480\n", "did you mean delay_ms?"),
        ("l.csv", "path,vocabluary\na.wav,x\n", "did you mean vocabulary?"),
        ("l.jsonl", '{"path": "a.wav", "lang": "de"}', "did you mean language?"),
        ("l.csv", 'path\n"a.wav\n', "line 1: unexpected end"),
        ("l.csv", "path\n\udcff.wav\n", "not UTF-8"),
    ],
)
def test_manifests_that_are_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(DatasetError, match=re.escape(name) + ".*" + message):
        collect([tmp_path / name])


def test_all_rows_that_are_wrong_are_named(tmp_path):
    rows = ["a.wav,soon", "b.wav,480", "c.wav,1.5", *["d.wav,soon"] * 12]
    (tmp_path / "l.csv").write_text("\n".join(["path,delay_ms", *rows, ""]))
    with pytest.raises(DatasetError) as raised:
        collect([tmp_path / "l.csv"])
    assert str(raised.value) == (
        f"{tmp_path}/l.csv, line 2, line 5, line 6, line 7, line 8, line 9, line 10, line 11, "
        f"line 12, line 13, and 3 more: delay_ms 'soon' is no number; line 4: delay_ms '1.5' is no "
        f"whole number"
    )


def test_columns_in_capitals_and_of_other_meaning(tmp_path):
    columns = "Path,ID,Delay_MS,speaker_id,duration,text,audio_id,num_channels,prompt_id,gender"
    (tmp_path / "l.csv").write_text(f"{columns}\na.wav,x,480,1,1,1,1,1,1,1\n")
    found = collect([tmp_path / "l.csv"])
    assert found.recordings == {"x": Recording("x", str(tmp_path / "a.wav"), {"delay_ms": 480})}
    assert found.unused == set(columns.split(",")[3:])
