"""Measuring alignment heads: on the small checkpoint, whose own heads are known."""

import json
import shutil
import sys
from math import nan
from pathlib import Path

import numpy as np
import pytest

from voxfast import cli
from voxfast.bench.attended import AttendedClip, AttendedWord, _matched, _seconds, _units
from voxfast.bench.heads import HeadScores, draw_heads
from voxfast.bench.word_timing import LATE_END, LATE_START, TimingScores, measure_timing
from voxfast.models.qwen3_asr.heads import FILE, find_alignment_heads
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.traits import AttentionTiming, read_traits
from voxfast.timed import Word
from voxfast.vad import SpeechSpan

CLIPS = Path(__file__).parent / "data" / "eval" / "eval.json"
SOME = [1, 3, 7, 9, 13, 17, 22, 31]


def some_clips(path: Path, indices: list[int], **changes: object) -> Path:
    """A manifest of some of the clips, with other entries where given."""
    items = json.loads(CLIPS.read_text())["items"]
    chosen = [items[i] | {"file": str(CLIPS.parent / items[i]["file"])} | changes for i in indices]
    path.write_text(json.dumps({"items": chosen}))
    return path


def test_the_heads_of_the_small_checkpoint_are_found(
    qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = some_clips(tmp_path / "clips.json", SOME)
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
    assert known.heads[0] == (2, 1)
    content = json.loads(found.read_text())
    scores = {(s["layer"], s["head"]): s for s in content["scores"]}
    assert measured.heads[0] == next(iter(scores))
    assert scores[2, 1]["score"] > 0.9
    # From the middle of the word: this head was taught to look at the end, 0.16 s behind it.
    assert 0.08 < scores[2, 1]["median_abs_error_s"] < 0.24
    assert content["words"] > 0.9 * content["words_spoken"] > 20
    assert content["scores"][0]["score"] == 1.0
    assert len(content["scores"]) == 16 > len(measured.heads)
    fitted = read_traits(qwen_folder).attention  # by its training, in sessions
    assert measured.timing is not None
    assert fitted is not None
    assert measured.timing.start_lead == pytest.approx(fitted.start_lead, abs=0.08)
    assert content["attention_timing"]["start_lead"] == measured.timing.start_lead
    layer, head = measured.heads[0]
    assert out.startswith(f"layer {layer:2d}, head {head:2d}: 100.0 % of the words")
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


def test_without_word_times_the_pauses_tell_the_timing(
    qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen_folder, folder)
    (folder / "voxfast.json").unlink()
    before = json.loads((folder / FILE).read_text())
    clips = some_clips(tmp_path / "clips.json", SOME, words=None)
    arguments = ["align-heads", str(clips), "--model", str(folder), "--language", "en"]
    assert cli.main(arguments) == 0
    assert "from pauses that the voice detector found" in capsys.readouterr().out
    content = json.loads((folder / FILE).read_text())
    assert {key: content[key] for key in before} == before
    found = find_alignment_heads(folder, json.loads((folder / "config.json").read_text()))
    fitted = read_traits(qwen_folder).attention
    assert found is not None
    assert found.timing is not None
    assert fitted is not None
    assert found.timing.start_lead == pytest.approx(fitted.start_lead, abs=0.08)
    assert found.timing.end_trail == pytest.approx(fitted.end_trail, abs=0.06)
    # Now it is there, and nothing that is there is overwritten.
    assert refusal(capsys, *arguments[1:])[0] == 2


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
    found = _matched([*tokens, min(tokenizer.ends)], tokenizer, spoken)
    assert [own for _, _, own in found] == [0, None, 1, 2, 4]
    # Each word's tokens, from the first to the last, are its text.
    text = [
        b"".join(tokenizer.piece(token) or b"" for token in tokens[first : last + 1]).strip()
        for first, last, _ in found
    ]
    assert text == [b"open", b"the", b"red", b"window", b"please"]


def test_words_without_spaces_are_measured_by_the_character() -> None:
    words = [Word("你好，", 1.0, 2.0), Word("世", 2.0, 2.4)]
    assert _units(words, "Chinese") == [
        Word("你", 1.0, 1.5),
        Word("好", 1.5, 2.0),
        Word("世", 2.0, 2.4),
    ]
    assert _units(words, "Korean") == words


def attended(first: float, last: float, spoken: int | None) -> AttendedWord:
    """A word that three heads attend to, one of them far off; a fourth head is not asked."""
    times = [[[at, at + 9.0], [at, -5.0]] for at in (first, last)]
    return AttendedWord(np.array(times[0]), np.array(times[1]), spoken)


HEADS = [(0, 0), (0, 1), (1, 0)]


def test_margins_from_word_times() -> None:
    # Words of 0.3 s that touch, every third one behind a pause; one was not recognised.
    starts = [0.3 * i + 0.5 * (i // 3) for i in range(33)]
    spoken = tuple(Word("x", start, start + 0.3) for start in starts)
    words = [attended(start + 0.21, start + 0.17, i) for i, start in enumerate(starts)]
    words[4] = attended(99.0, 99.0, None)
    scores = measure_timing([AttendedClip(tuple(words), spoken, (), 60.0)], HEADS)
    assert scores == TimingScores(AttentionTiming(0.21, 0.13), 11, 32, "times of words")
    # Starts that touch the word before are left out, so that 9 are too few.
    few = AttendedClip(tuple(words[:27]), spoken[:27], (), 60)
    assert measure_timing([few], HEADS) is None


def test_margins_from_pauses() -> None:
    starts = [0.05, *(1.7 * i for i in range(1, 13))]  # spans of two words
    spoken = tuple(Word("x", nan, nan) for _ in range(26))
    words, spans = [], []
    for i, start in enumerate(starts):
        spans.append(SpeechSpan(start + LATE_START, start + 0.9 + LATE_END))
        words += [
            attended(start + 0.2, start + 0.25, 2 * i if i != 5 else None),
            attended(start + 0.6, start + 0.7, 2 * i + 1),
        ]
    clip = AttendedClip(tuple(words), spoken, tuple(spans), starts[-1] + 0.92)
    scores = measure_timing([clip], HEADS)
    assert scores is not None
    assert scores.timing == AttentionTiming(0.2, 0.2)
    # Speech at the edges of a clip may be cut off, and one first word was not recognised.
    assert (scores.n_starts, scores.n_ends) == (11, 12)
    assert scores.source == "pauses that the voice detector found"


def test_starts_of_audio_positions(qwen_folder: Path) -> None:
    from voxfast.models.qwen3_asr.weights import load_qwen3_asr

    model = load_qwen3_asr(qwen_folder)
    frames = np.array([0, 1, 11, 12, 13, 26], np.int32)
    np.testing.assert_allclose(_seconds(model, frames), [0.0, 0.08, 0.88, 0.96, 1.0, 2.0])


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
    untimed = some_clips(tmp_path / "untimed.json", [2], words=None)
    code, err = refusal(capsys, clips, untimed, "--model", qwen_folder, *out)
    assert (code, "eval_02.flac: the data set gives no times" in err) == (1, True)
    code, err = refusal(capsys, untimed, "--model", qwen_folder, *out)
    assert (code, "fewer than 10 pauses" in err) == (1, True)
    code, err = refusal(capsys, untimed, "--model", qwen_folder, *out, "--figure", "map.png")
    assert (code, "only word times can tell" in err) == (2, True)
    unknown = tmp_path / "unknown"
    shutil.copytree(qwen_folder, unknown)
    (unknown / FILE).unlink()
    code, err = refusal(capsys, untimed, "--model", unknown, *out)
    assert (code, "heads of" in err and "are not known" in err) == (2, True)
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
