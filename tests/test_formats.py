"""Transcripts as text, JSON, subtitles and tables."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfast import formats
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
    assert formats.to_text(TALK) == "Seven eight.\nNine\nten\n"
    assert formats.to_text(Transcript()) == ""
    assert TALK.text == "Seven eight. Nine ten"


def test_lines_of_text():
    """A sentence, or what was said before a pause; nothing else begins a line."""
    text = " Mr. Smith came. He said: 3. 5 is 3.5 in the U.S. Army.\n\x1b Why? No. 5"
    words = [Word(part, i / 2, i / 2 + 0.5) for i, part in enumerate(re.findall(r"\s*\S+", text))]
    words.append(Word(" late", 20, 21))
    assert formats.to_text(Transcript(tuple(words))).splitlines() == [
        "Mr. Smith came.",
        "He said: 3. 5 is 3.5 in the U.S. Army.",
        "Why?",
        "No. 5",
        "late",
    ]
    japanese = [Word(c, i / 10, i / 10 + 0.1) for i, c in enumerate("終わり。次「は。」ね")]
    assert formats.to_text(Transcript(tuple(japanese))).splitlines() == [
        "終わり。",
        "次「は。」",
        "ね",
    ]


def test_json():
    document = json.loads(formats.to_json(TALK, source="a.wav", complete=False))
    assert list(document) == [
        "schema",
        "version",
        "source",
        "model",
        "language",
        "duration",
        "skipped",
        "complete",
        "text",
        "segments",
        "words",
    ]
    assert document["schema"] == 1
    assert document["source"] == "a.wav"
    assert document["complete"] is False
    assert document["duration"] == 4.0
    assert document["skipped"] == 0
    quiet = replace(TALK, skipped=1.23456)
    assert json.loads(formats.to_json(quiet))["skipped"] == 1.235
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


def test_segments():
    """The lines of the text, with their words, times and mean probability."""
    words = (
        Word("\n", 0.1, 0.2, 1.0),
        Word(" Mr.", 0.5, 0.7, 0.5),
        Word(" Smith.", 0.7, 1.4, 1.0),
        Word(" Yes", 1.3, 1.35, 0.25),  # overlaps
        Word(" no", 2.5, 2.6, None),  # after a pause
        Word(" ", 2.6, 2.6, 0.5),
    )
    transcript = Transcript(words, 3.0, "m", "English")
    found = transcript.segments
    assert [segment.text for segment in found] == ["Mr. Smith.", "Yes", "no"]
    spans = [(segment.start, segment.end) for segment in found]
    assert spans == [(0.1, 1.4), (1.3, 1.35), (2.5, 2.6)]
    assert found[0].probability == pytest.approx(2.5 / 3)
    assert found[2].probability is None
    assert {segment.language for segment in found} == {"English"}
    assert tuple(word for segment in found for word in segment.words) == words
    assert [segment.text for segment in found] == formats.to_text(transcript).splitlines()
    document = json.loads(formats.to_json(transcript))
    assert document["segments"][1] == {
        "text": "Yes", "start": 1.3, "end": 1.35, "probability": 0.25, "words": 1,
    }  # fmt: skip
    assert sum(segment["words"] for segment in document["segments"]) == len(document["words"])
    assert Transcript((Word(" ", 0, 1),)).segments == Transcript().segments == ()


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


def test_ass():
    words = [Word(r" {\b1}a\N", 0.004, 1), Word(" b,", 1, 2), Word(" x" * 21, 2, 3.006)]
    text = formats.to_ass(Transcript(tuple(words)), channel=2)
    header, _, lines = text.partition("Effect, Text\n")
    assert header.startswith("[Script Info]\nScriptType: v4.00+\n")
    # One definition has as many fields as its format says.
    for section in "[V4+ Styles]", "[Events]":
        names = re.search(rf"{re.escape(section)}\nFormat: (.*)\n(?:Style|Dialogue): (.*)", text)
        assert names
        count = len(names[1].split(","))
        assert len(names[2].split(",", count - 1)) == count
    joiner = "\u2060"
    assert lines == (
        "Dialogue: 0,0:00:00.00,0:00:03.01,Default,Channel 2,0,0,0,,"
        rf"[2] \{{\{joiner}b1\}}a\{joiner}N b,\N" + " ".join("x" * 21) + "\n"
    )


def test_lrc():
    words = [Word(" [00:01.00]one", 0.5, 0.9), Word(" two", 3.0, 3.5), Word(" six", 6000, 6001)]
    assert formats.to_lrc(Transcript(tuple(words))) == (
        "[00:00.50] [00:01.00]one\n[00:01.50]\n[00:03.00]two\n[00:04.00]\n"
        "[100:00.00]six\n[100:01.00]\n"
    )
    assert formats.to_lrc(Transcript()) == ""


@pytest.mark.parametrize("name", formats.FORMATS)
def test_channels(name):
    options = {"channel": 3}
    text = getattr(formats, f"to_{name}")(TALK, **options)
    label = {
        "json": '"channel": 3,',
        "jsonl": '{"channel": 3, "text"',
        "tsv": "\n3\t0.500",
        "vtt": "\n<v Channel 3>Seven",
    }.get(name, "[3] Seven")
    assert label in text
    assert "3" not in getattr(formats, f"to_{name}")(Transcript((Word(" a", 0, 0.5),)))[-12:]


def test_tsv_escapes():
    words = (Word(" a\tb\nc\\d\r", 0.12345, 1, 0.5), Word("x", 1, 2))
    assert formats.to_tsv(Transcript(words)) == (
        "start\tend\tprobability\ttext\n0.123\t1.000\t0.5\t a\\tb\\nc\\\\d\\r\n1.000\t2.000\t\tx\n"
    )
