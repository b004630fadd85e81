"""Transcripts as text, JSON, subtitles and tables."""

import itertools
import json
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast import formats
from voxfast._captions import columns
from voxfast.timed import Transcript, Word

TALK = Transcript(
    words=(
        Word(" Seven", 0.5, 0.9, 0.98765),
        Word(" eight", 0.9, 1.2, 0.5),
        Word(".", 1.2, 1.25),
        Word(" Nine", 1.3, 1.6, 1.0),
        Word(" ten", 2.9, 3.2, 1.0),
    ),
    duration=4.0004,
    model="voxtral-numbers",
    language="en",
)


def spoken(text: str, *, step: float = 0.3, start: float = 0.0) -> list[Word]:
    """The words of a text, spoken one after the other without a pause."""
    parts = re.findall(r"\s*\S+", text)
    return [Word(part, start + i * step, start + (i + 1) * step) for i, part in enumerate(parts)]


def texts(words: list[Word]) -> list[tuple[str, ...]]:
    return [caption.lines for caption in formats.captions(words)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "00:00:00.000"),
        (0.9996, "00:00:01.000"),
        (0.9994, "00:00:00.999"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (1.0005, "00:00:01.000"),
        (86399.9994, "23:59:59.999"),
        (360000, "100:00:00.000"),
        (-0.0001, "00:00:00.000"),
    ],
)
def test_timestamp(seconds, expected):
    assert formats.timestamp(seconds) == expected
    assert formats.timestamp(seconds, ",") == expected.replace(".", ",")


@given(milliseconds=st.integers(0, 10**10))
def test_timestamp_round_trip(milliseconds):
    stamp = formats.timestamp(milliseconds / 1000)
    hours, minutes, seconds = stamp.split(":")
    assert len(hours) >= 2
    assert int(minutes) < 60
    assert float(seconds) < 60
    whole, fraction = seconds.split(".")
    total = ((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1000 + int(fraction)
    assert total == milliseconds


def test_text():
    assert formats.to_text(TALK) == "Seven eight. Nine ten\n"
    assert formats.to_text(Transcript()) == ""


def test_json():
    document = json.loads(formats.to_json(TALK, source="a.wav", complete=False))
    assert list(document) == [
        "schema",
        "version",
        "source",
        "model",
        "language",
        "duration",
        "complete",
        "text",
        "words",
    ]
    assert document["schema"] == 1
    assert document["source"] == "a.wav"
    assert document["complete"] is False
    assert document["duration"] == 4.0
    assert document["language"] == "en"
    assert document["model"] == "voxtral-numbers"
    assert document["words"][0] == {
        "text": " Seven",
        "start": 0.5,
        "end": 0.9,
        "probability": 0.9877,
    }
    assert document["words"][2]["probability"] is None
    assert "".join(word["text"] for word in document["words"]).strip() == document["text"]


def test_json_is_strict():
    text = formats.to_json(Transcript((Word(" é\n", 0, 1, float("nan")),), 1))
    assert "NaN" not in text
    assert "é" in text
    assert json.loads(text)["words"][0]["text"] == " é\n"


def test_jsonl():
    lines = formats.to_jsonl(TALK, source="a.wav").splitlines()
    assert len(lines) == 5
    assert json.loads(lines[1]) == {
        "source": "a.wav",
        "text": " eight",
        "start": 0.9,
        "end": 1.2,
        "probability": 0.5,
    }
    assert "source" not in json.loads(formats.word_line(TALK.words[0]))
    # A line feed in a word does not end the line.
    assert formats.word_line(Word("a\n\u2028b", 0, 1)).count("\n") == 1


def test_srt():
    assert formats.to_srt(TALK) == (
        "1\n00:00:00,500 --> 00:00:01,300\nSeven eight.\n\n"
        "2\n00:00:01,300 --> 00:00:02,300\nNine\n\n"
        "3\n00:00:02,900 --> 00:00:03,900\nten\n\n"
    )


def test_vtt_escapes():
    words = [Word(" a<b>", 0, 1), Word(" &c", 1, 2), Word(" x --> y", 2, 3)]
    text = formats.to_vtt(Transcript(tuple(words)))
    assert text == ("WEBVTT\n\n00:00:00.000 --> 00:00:03.000\na&lt;b&gt; &amp;c x --&gt; y\n")
    assert formats.to_vtt(Transcript()) == "WEBVTT\n"


def test_tsv_escapes():
    words = (Word(" a\tb\nc\\d\r", 0.12345, 1, 0.5), Word("x", 1, 2))
    assert formats.to_tsv(Transcript(words)) == (
        "start\tend\tprobability\ttext\n0.123\t1.000\t0.5\t a\\tb\\nc\\\\d\\r\n1.000\t2.000\t\tx\n"
    )


def test_captions_break_at_pauses_and_sentences():
    words = [*spoken(" one two. three"), *spoken(" four", start=1.7), *spoken(" five", start=2.9)]
    assert texts(words) == [("one two.",), ("three four",), ("five",)]
    assert texts(spoken(' "one." two')) == [('"one."',), ("two",)]
    assert texts(spoken(" 3.5 percent")) == [("3.5 percent",)]


def test_captions_are_at_most_two_lines_of_42_columns():
    words = spoken(" abcdefghi" * 40, step=0.1)
    found = formats.captions(words)
    assert all(len(caption.lines) <= 2 for caption in found)
    assert all(len(line) <= 42 for caption in found for line in caption.lines)
    # Four words of ten columns fit a line.
    assert {len(caption.lines) for caption in found} == {2}
    assert len(found) == 5


def test_two_full_lines_fit():
    (caption,) = formats.captions(spoken(" " + "x" * 42 + " " + "y" * 42))
    assert caption.lines == ("x" * 42, "y" * 42)


def test_lines_of_a_caption_are_balanced():
    (caption,) = formats.captions(spoken(" aaaa bbbb cccc dddd eeee ffff gggg hhhh iiii jjjj"))
    assert caption.lines == ("aaaa bbbb cccc dddd eeee", "ffff gggg hhhh iiii jjjj")


def test_captions_last_at_most_seven_seconds():
    found = formats.captions(spoken(" a" * 30, step=0.5))
    assert [round(caption.end - caption.start, 3) for caption in found] == [7, 7, 1]


def test_captions_last_a_while_but_never_overlap():
    words = [Word(" a.", 1.0, 1.1), Word(" b.", 1.2, 1.3), Word(" c", 1.2, 1.2), Word(" d", 9, 9)]
    found = formats.captions(words)
    assert [(caption.start, caption.end) for caption in found] == [
        (1.0, 1.2),
        (1.2, pytest.approx(1.201)),
        (1.2, 2.2),
        (9, 10),
    ]


def test_captions_without_spaces():
    """Japanese and Thai break anywhere but before marks; full-width takes two columns."""
    sentence = "今日は天気がとても良いので、公園を散歩しました"
    words = [Word(c, i * 0.1, i * 0.1 + 0.1) for i, c in enumerate(sentence * 3)]
    found = formats.captions(words)
    lines = [line for caption in found for line in caption.lines]
    assert "".join(lines) == sentence * 3
    assert all(len(line) <= 21 for line in lines)
    assert not any(line.startswith("、") for line in lines)
    assert texts([Word(c, 0, 1) for c in "終わり。次"]) == [("終わり。",), ("次",)]


@pytest.mark.parametrize("before", range(6))
def test_no_line_begins_with_a_combining_mark(before):
    thai = "ก" * before + "ที่นี่สวัสดี" * 14
    found = formats.captions([Word(c, 0.1 * i, 0.1 * i + 0.1) for i, c in enumerate(thai)])
    lines = [line for caption in found for line in caption.lines]
    assert len(lines) > 2
    assert "".join(lines) == thai
    assert not any(unicodedata.category(line[0]) == "Mn" for line in lines)


def test_pieces_of_a_word_stay_together():
    words = [Word(" unbreak", 0, 0.2), Word("able", 0.2, 0.4), Word("!", 0.4, 0.5)]
    words += spoken(" " + "word " * 6, start=0.5)
    lines = [line for caption in formats.captions(words) for line in caption.lines]
    assert "unbreakable!" in lines[0]


def test_word_wider_than_a_line():
    found = formats.captions([Word(" " + "x" * 100, 0, 10)])
    assert "".join(line for caption in found for line in caption.lines) == "x" * 100
    assert all(len(line) <= 42 for caption in found for line in caption.lines)


def test_control_characters_do_not_break_cues():
    words = [Word(" a\n\nb", 0, 1), Word("\r\n", 1, 2), Word(" \t", 1, 2), Word(" c\0", 1, 2)]
    assert texts(words) == [("a  b c",)]


words_strategy = st.lists(
    st.tuples(
        st.text(max_size=60) | st.sampled_from([" one", " two.", ",", "は", "。", " ", "\n", "ก็"]),
        st.floats(0, 12),
        st.floats(0, 12),
    ),
    max_size=25,
)


@given(parts=words_strategy)
@settings(max_examples=60, deadline=None)
def test_any_words_make_sound_captions(parts):
    clock, words = 0.0, []
    for text, gap, length in parts:
        clock += gap
        words.append(Word(text, clock, clock + length))
    found = formats.captions(words)
    for caption in found:
        assert 1 <= len(caption.lines) <= 2
        assert all(line and line == line.strip() for line in caption.lines)
        assert all(columns(line) <= 42 for line in caption.lines)
        assert caption.start < caption.end
    for one, two in itertools.pairwise(found):
        assert one.start <= two.start
        assert one.end <= two.start + 0.0011
    assert bool(found) == any(_is_visible(text) for text, _, _ in parts)
    # Every cue is a block of three lines or four.
    blocks = formats.to_srt(Transcript(tuple(words))).split("\n\n")[:-1]
    assert len(blocks) == len(found)
    assert len(formats.to_tsv(Transcript(tuple(words))).split("\n")) == len(words) + 2


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(c) not in ("Cc", "Zl", "Zp", "Zs") for c in text)
