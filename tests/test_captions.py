"""Words grouped into captions, whole and while they come."""

import itertools
import math
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast import formats
from voxfast._captions import CaptionStream, columns
from voxfast._sentences import ends_sentence, is_abbreviation
from voxfast.timed import Transcript, Word


def spoken(text: str, *, step: float = 0.3, start: float = 0.0) -> list[Word]:
    """The words of a text, spoken one after the other without a pause."""
    parts = re.findall(r"\s*\S+", text)
    return [Word(part, start + i * step, start + (i + 1) * step) for i, part in enumerate(parts)]


def texts(words: list[Word]) -> list[tuple[str, ...]]:
    return [caption.lines for caption in formats.captions(words)]


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
    words = [Word(" go.", 1, 1.1), Word(" to.", 1.4, 1.5), Word(" c", 1.5, 1.5), Word(" d", 9, 9)]
    found = formats.captions(words)
    assert [(caption.lines, caption.start, caption.end) for caption in found] == [
        (("go.",), 1.0, 1.4),
        (("to. c",), 1.4, 2.4),
        (("d",), 9, 10),
    ]


@pytest.mark.parametrize("times", [(1.0, 1.0), (1.0, 1.2), (0.0, 6.0)])
def test_sentences_that_share_their_time_share_a_caption(times):
    words = [Word(text, *times) for text in (" Yes.", " No!", " Why?")]
    (caption,) = formats.captions(words)
    assert caption.lines == ("Yes. No! Why?",)
    assert caption.end - caption.start >= 1


def test_captions_for_which_there_is_no_time_are_late():
    words = [Word(" " + "x" * 40, 1.0, 1.0) for _ in range(6)] + [Word(" y", 5.0, 5.2)]
    found = formats.captions(words)
    assert [caption.start for caption in found] == [1.0, 1.3, 1.6, 5.0]
    assert [caption.end for caption in found] == [1.3, 1.6, 2.6, 6.0]


def test_captions_without_spaces():
    """Japanese and Thai break anywhere but before marks; full-width takes two columns."""
    sentence = "今日は天気がとても良いので、公園を散歩しました"
    words = [Word(c, i * 0.1, i * 0.1 + 0.1) for i, c in enumerate(sentence * 3)]
    found = formats.captions(words)
    lines = [line for caption in found for line in caption.lines]
    assert "".join(lines) == sentence * 3
    assert all(len(line) <= 21 for line in lines)
    assert not any(line.startswith("、") for line in lines)
    words = [Word(c, i * 0.1, i * 0.1 + 0.1) for i, c in enumerate("終わり。次")]
    assert texts(words) == [("終わり。",), ("次",)]


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


SAID = [" one", " two.", " Mr.", " 3.", ",", "は", "。", " ", "\n", "ก็", " U.S.", ".5", "\ud800"]


@st.composite
def any_words(draw: st.DrawFn) -> list[Word]:
    """Words whose times may be equal, overlap, go back, or be no numbers."""
    odd = st.sampled_from([0.0, 0.0, -1.0, 1e-4, 0.29999, 0.3, 1.0, math.nan, math.inf])
    parts = draw(
        st.lists(
            st.tuples(
                st.text(max_size=60) | st.sampled_from(SAID),
                st.floats(0, 12) | odd,
                st.floats(0, 12) | odd,
            ),
            max_size=25,
        )
    )
    clock, words = 0.0, []
    for text, gap, length in parts:
        start = clock + gap
        words.append(Word(text, start, start + length))
        clock = max(start, 0.0) if math.isfinite(start) else clock
    return words


@given(words=any_words(), cuts=st.lists(st.integers(0, 25), max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_words_make_sound_captions(words, cuts):
    found = formats.captions(words)
    for caption in found:
        assert 1 <= len(caption.lines) <= 2
        assert all(line and line == line.strip() for line in caption.lines)
        assert all(columns(line) <= 42 for line in caption.lines)
        assert caption.end - caption.start >= 0.2999
    for one, two in itertools.pairwise(found):
        assert two.start - one.start >= 0.2999
        assert one.end <= two.start
    assert bool(found) == any(_is_visible(word.text) for word in words)
    # Captions that come while the words do are the same.
    stream, edges = CaptionStream(), [0, *sorted(cuts), len(words)]
    parts = [stream.step(words[a:b]) for a, b in itertools.pairwise(edges)]
    assert [*itertools.chain(*parts), *stream.finish()] == found


TIMES = {
    "srt": r"(?m)^(\d+):(\d\d):(\d\d),(\d{3}) --> (\d+):(\d\d):(\d\d),(\d{3})$",
    "vtt": r"(?m)^(\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d+):(\d\d):(\d\d)\.(\d{3})$",
    "ass": r"(?m)^Dialogue: 0,(\d):(\d\d):(\d\d)\.(\d\d),(\d):(\d\d):(\d\d)\.(\d\d),",
}


@given(words=any_words(), cuts=st.lists(st.integers(0, 25), max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_words_make_sound_files(words, cuts):
    transcript = Transcript(tuple(words))
    count = len(formats.captions(words))
    for name, pattern in TIMES.items():
        text = formats.FORMATS[name](transcript)
        text.encode()
        spans = [tuple(map(int, groups)) for groups in re.findall(pattern, text)]
        assert len(spans) == count
        ends = [(0, 0, 0, 0)]
        for span in spans:
            assert ends[-1] <= span[:4] < span[4:]
            ends.append(span[4:])
    assert len(formats.to_srt(transcript).split("\n\n")) == count + 1
    stamps = re.findall(r"(?m)^\[(\d+:\d\d\.\d\d)\]", formats.to_lrc(transcript))
    assert stamps == sorted(set(stamps))
    assert len(formats.to_tsv(transcript).split("\n")) == len(words) + 2
    # A file that is written while the words come is the same.
    edges = [0, *sorted(cuts), len(words)]
    for name, writer_of in formats.WRITERS.items():
        writer = writer_of()
        steps = [writer.step(words[a:b]) for a, b in itertools.pairwise(edges)]
        assert "".join(steps) + writer.finish() == formats.FORMATS[name](transcript)


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(c) not in ("Cc", "Zl", "Zp", "Zs") for c in text)


# Sentences


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("I met Mr.", " Smith"),
        ("The U.S.", " Army"),
        ("It is No.", " 5"),
        ("No.", " Five"),
        ("Er kam am 3.", " Mai"),
        ("im 19.", " Jahrhundert"),
        ("Ludwig XIV.", " starb"),
        ("by J.", " R."),
        ("by J. R. R.", " Tolkien"),
        ("at 5 p.m.", " London time"),
        ("See Fig.", " 3"),
        ("Hunde bzw.", " Katzen"),
        ("z.", " B."),
        ("z.B.", " Berlin"),
        ("Voilà M.", " Dupont"),
        ("la Sra.", " García"),
        ("il dott.", " Rossi"),
        ("ул.", " Ленина"),
        ("(cf.", " Smith"),
        ("the St.", " Paul's"),
        ("He holds a Ph.D.", " From"),
        ("Jan.", " 5"),
    ],
)
def test_no_caption_ends_after_an_abbreviation(text, following):
    assert is_abbreviation(text, following)
    assert not ends_sentence(text, following)
    # Not even where a caption is full, or time is up.
    for before in range(0, 90, 3):
        words = [*spoken(" ab" * (before // 3) + " " + text + following + " and more", step=0.4)]
        last, first = text.split()[-1], following.split()[0]
        lines = [line for caption in texts(words) for line in caption]
        assert any(f"{last} {first}" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("That is all.", " Then"),
        ("He said no.", " Then"),
        ("It was in 1990.", " Then"),
        ("It costs 3.50.", " Then"),
        ("I like the fig.", " It"),
        ("Give it to me.", " Then"),
        ("Is it?", " yes"),
        ("終わり。", "次"),
        ('"That is all."', " Then"),
        ("one two.", " three"),  # a model that writes no capitals
        ("Wait...", " What"),
        ("تم؟", " نعم"),
    ],
)
def test_sentences_end(text, following):
    assert ends_sentence(text, following)


@pytest.mark.parametrize(
    ("text", "following"),
    [("Quite approx.", " five"), ("And so on, etc.", " and"), ("Wait…", " what"), ("", " a")],
)
def test_sentences_go_on(text, following):
    assert not ends_sentence(text, following)


def test_decimals_that_are_split_over_words():
    words = [Word(" It", 0, 0.5), Word(" is", 0.5, 1), Word(" 3.", 1, 1.5), Word("5", 1.5, 2)]
    assert texts([*words, Word(" Now", 2, 3)]) == [("It is 3.5 Now",)]


def test_a_stream_without_spaces_is_shown():
    stream = CaptionStream()
    words = [Word("abcdefghij", i / 10, i / 10 + 0.1) for i in range(1000)]
    found = stream.step(words)
    assert sum(len(line) for caption in found for line in caption.lines) > 9000
