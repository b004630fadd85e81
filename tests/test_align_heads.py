"""Measuring alignment heads: on the small checkpoint, whose own heads are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from voxfast import cli
from voxfast.bench.heads import HeadScores, _recognised, _seconds, _units, draw_heads
from voxfast.models.qwen3_asr.heads import FILE, find_alignment_heads
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.timed import Word

CLIPS = Path(__file__).parent / "data" / "eval" / "eval.json"


def some_clips(path: Path, indices: list[int], **changes: object) -> Path:
    """A manifest of some of the clips, with other entries where given."""
    items = json.loads(CLIPS.read_text())["items"]
    chosen = [items[i] | {"file": str(CLIPS.parent / items[i]["file"])} | changes for i in indices]
    path.write_text(json.dumps({"items": chosen}))
    return path


def test_the_heads_of_the_small_checkpoint_are_found(
    qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = some_clips(tmp_path / "clips.json", [9, 13, 22, 31])
    found, picture = tmp_path / "heads.json", tmp_path / "map.png"
    arguments = ["align-heads", str(clips), "--model", str(qwen_folder), "-o", str(found)]
    assert cli.main([*arguments, "--figure", str(picture), "-q"]) == 0
    out = capsys.readouterr().out
    config = json.loads((qwen_folder / "config.json").read_text())
    known = find_alignment_heads(qwen_folder, config)
    measured = find_alignment_heads(qwen_folder, config, found)
    assert known is not None
    assert measured is not None
    assert set(measured.heads[:5]) == set(known.heads[:5])
    assert measured.heads[0] == known.heads[0] == (2, 1)
    content = json.loads(found.read_text())
    assert content["words"] > 0.9 * content["words_spoken"] > 20
    assert content["scores"][0]["score"] == 1.0
    assert content["scores"][0]["median_abs_error_s"] < 0.06
    assert len(content["scores"]) == 16 > len(measured.heads)
    assert out.startswith("layer  2, head  1: 100.0 % of the words")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_query_that_predicts_a_token_is_asked(qwen_folder: Path, tmp_path: Path) -> None:
    # One step later the best head finds 84 % of the words, and (2, 1) only 69 %.
    clips = some_clips(tmp_path / "clips.json", [9, 13])
    found = tmp_path / "heads.json"
    arguments = ["align-heads", str(clips), "--model", str(qwen_folder), "-o", str(found), "-q"]
    assert cli.main([*arguments, "--language", "en"]) == 0
    shares = {(s["layer"], s["head"]): s["score"] for s in json.loads(found.read_text())["scores"]}
    assert shares[2, 1] == 1.0
    assert min(shares[2, 0], shares[1, 0]) > 0.9


# ---- parts ----------------------------------------------------------------------------------


def test_the_map_rings_the_heads_that_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    shares = np.array([[0.6, 0.9, 0.2], [0.9, 0.1, 0.3]])
    draw_heads(HeadScores(shares, 1 - shares, 10, 12, 2, 0.16), tmp_path / "map.png", "x")
    rings = drawn[0].axes[0].collections[0].get_offsets()
    assert sorted((layer, head) for head, layer in rings.tolist()) == [(0, 0), (0, 1), (1, 0)]


def test_heads_are_ranked_by_share_and_then_by_error() -> None:
    shares, errors = np.array([[0.6, 0.9], [0.9, 0.1]]), np.array([[0.0, 0.3], [0.2, 0.1]])
    scores = HeadScores(shares, errors, 10, 12, 2, 0.16)
    assert scores.ranking() == [(1, 0), (0, 1), (0, 0), (1, 1)]
    assert scores.listed() == [(1, 0), (0, 1), (0, 0)]
    bad = HeadScores(shares / 10, errors, 10, 12, 2, 0.16)
    assert bad.listed() == [(1, 0)]
    assert json.loads(bad.as_json("x"))["alignment_heads_compact"] == [[1, 0]]


def test_words_are_matched_to_what_was_said(qwen_folder: Path) -> None:
    tokenizer = Qwen3ASRTokenizer(qwen_folder, 151936)
    tokens = tokenizer.encode("open the red window please")
    said = ["Open,", "red", "window,", "six", "please"]
    spoken = [Word(text, i, i + 0.5) for i, text in enumerate(said)]
    found = _recognised([*tokens, min(tokenizer.ends)], tokenizer, spoken)
    assert [word.start for _, word in found] == [0, 1, 2, 4]
    pieces = [tokenizer.piece(tokens[place]) for place, _ in found]
    assert all(
        piece is not None and text.startswith(piece.strip().decode())
        for piece, text in zip(pieces, ["open", "red", "window", "please"], strict=True)
    )


def test_words_without_spaces_are_measured_by_the_character() -> None:
    words = [Word("你好，", 1.0, 2.0), Word("世", 2.0, 2.4)]
    assert _units(words, "Chinese") == [
        Word("你", 1.0, 1.5),
        Word("好", 1.5, 2.0),
        Word("世", 2.0, 2.4),
    ]
    assert _units(words, "Korean") == words


def test_middles_of_audio_positions(qwen_folder: Path) -> None:
    from voxfast.models.qwen3_asr.weights import load_qwen3_asr

    model = load_qwen3_asr(qwen_folder)
    frames = np.array([0, 1, 11, 12, 13, 26], np.int32)
    np.testing.assert_allclose(_seconds(model, frames), [0.04, 0.12, 0.92, 1.0, 1.04, 2.04])


# ---- what is refused --------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = cli.main(["align-heads", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("voxfast: error: ")
    return code, err


def test_heads_that_are_there_are_not_overwritten(
    qwen_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (qwen_folder / FILE).read_bytes()
    code, err = refusal(capsys, CLIPS, "--model", qwen_folder)
    assert code == 2
    assert str(qwen_folder / FILE) in err
    assert (qwen_folder / FILE).read_bytes() == before


def test_what_cannot_be_measured(
    qwen_folder: Path,
    voxtral_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["-o", tmp_path / "heads.json"]
    clips = some_clips(tmp_path / "clips.json", [0])
    code, err = refusal(capsys, clips, "--model", voxtral_folder, *out)
    assert (code, "only Qwen3-ASR has alignment heads" in err) == (1, True)
    code, err = refusal(capsys, clips, "--model", qwen_folder, "--language", "Klingon", *out)
    assert (code, "Klingon" in err) == (2, True)
    code, err = refusal(capsys, clips, "--model", qwen_folder, "--max-seconds", 1, *out)
    assert (code, "--max-seconds" in err) == (2, True)
    clips = some_clips(tmp_path / "untimed.json", [0], words=None)
    code, err = refusal(capsys, clips, "--model", qwen_folder, *out)
    assert (code, "eval_00.flac: the data set gives no times" in err) == (1, True)
    other = [{"word": "otherwise", "start": 0.1, "end": 0.2}]
    clips = some_clips(tmp_path / "other.json", [0], words=other)
    code, err = refusal(capsys, clips, "--model", qwen_folder, *out)
    assert (code, "none of the 1 words in 1 clips" in err) == (1, True)
    assert not (tmp_path / "heads.json").exists()


def test_without_matplotlib_it_says_so_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = (CLIPS, "--model", tmp_path / "nowhere", "--figure", tmp_path / "map.png")
    code, err = refusal(capsys, *arguments)
    assert code == 1
    assert "voxfast[bench]" in err
