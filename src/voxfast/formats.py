"""Transcripts as text, JSON, JSON Lines, TSV, SubRip, WebVTT, Advanced SubStation and LRC.

Pure functions; all text is valid Unicode: a lone surrogate, as a file name may hold one, is
written as U+FFFD. Each format but JSON has a :class:`Writer`, which writes it while the words
come; the functions write it whole, by the same code.

The JSON of a transcript, in this order of keys:

==============  ====================================================================
``schema``      1; rises when a key changes its meaning
``version``     of voxfast
``source``      what was transcribed: a file name; null if it has none
``channel``     number of the channel, from 1; only if channels are kept apart
``model``       name of the model
``language``    that was asked for or detected, or null
``duration``    seconds of audio that were heard
``skipped``     seconds of it that ``skip_silence`` kept from the model
``complete``    false if the audio was damaged or the transcription interrupted
``text``        the whole text
``segments``    a list of ``{"text", "start", "end", "probability", "words"}``: sentences, or
                what was said up to a pause; ``words`` is how many of ``words`` it has
``words``       a list of ``{"text", "start", "end", "probability"}``
==============  ====================================================================

A word's ``text`` carries its own leading space, so that joined words give the text; its
``start`` and ``end`` are seconds of the audio, to the millisecond; its ``probability`` is
0 to 1, or null. A line of JSON Lines is one word in the same form, with ``source`` and
``channel`` first if there are any. TSV has the columns ``start``, ``end``, ``probability``
and ``text``, with ``channel`` first if there is one. Words have the times that the model gave
them and may overlap; captions never do.

In text, a line is a segment: a sentence, or what was said up to a pause. Text, subtitles and
lyrics of a channel carry a label: ``[1] ``, and in WebVTT ``<v Channel 1>``.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from voxfast._captions import Caption, CaptionStream, captions
from voxfast._segments import SegmentBreaks
from voxfast.timed import Segment, Transcript, Word

__all__ = [
    "WRITERS",
    "Caption",
    "Writer",
    "captions",
    "timestamp",
    "to_ass",
    "to_json",
    "to_jsonl",
    "to_lrc",
    "to_srt",
    "to_text",
    "to_tsv",
    "to_vtt",
    "word_line",
]

_TSV_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# libass takes "\{" for a brace; a backslash is one unless what follows makes it a command, so a
# word joiner follows.
_ASS_ESCAPES = str.maketrans({"\\": "\\\u2060", "{": r"\{", "}": r"\}"})
_ASS_HEADER = """\
[Script Info]
ScriptType: v4.00+
PlayResX: 1280
PlayResY: 720
WrapStyle: 2
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, \
Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, \
Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,48,&H00FFFFFF,&H000000FF,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,2,1,2,\
40,40,40,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Writer:
    """Writes one transcript while its words come.

    Parity: for any split of the words, the texts of :meth:`step` and :meth:`finish` joined are
    what the function of the format makes of the whole transcript.

    Args:
        source: the name of the audio, for formats that hold it.
        channel: the number of the channel, from 1; None if channels are not kept apart.
    """

    header = ""

    def __init__(self, *, source: str | None = None, channel: int | None = None) -> None:
        self._source, self._channel = source, channel
        self._label = "" if channel is None else f"[{channel}] "
        self._begun = False

    def step(self, words: Sequence[Word]) -> str:
        """Take more words; return the text that they make certain."""
        return self._after_header(self._step(words))

    def pause(self) -> str:
        """End the open line, because it is known that nothing was said for a while.

        Only for text, and beyond parity: the whole transcript may have a longer line there.
        """
        return ""

    def finish(self) -> str:
        """The rest of the text."""
        return self._after_header(self._finish(), always=True)

    def _after_header(self, text: str, *, always: bool = False) -> str:
        if not self._begun and (text or always):
            self._begun = True
            text = self.header + text
        return _SURROGATE.sub("\ufffd", text)

    def _step(self, words: Sequence[Word]) -> str:
        raise NotImplementedError

    def _finish(self) -> str:
        return ""


class _Text(Writer):
    """Words as they come; a line for each segment."""

    def __init__(self, *, source: str | None = None, channel: int | None = None) -> None:
        super().__init__(source=source, channel=channel)
        self._breaks = SegmentBreaks()

    def _step(self, words: Sequence[Word]) -> str:
        return "".join(map(self._word, words))

    def _word(self, word: Word) -> str:
        was_open = self._breaks.is_open
        shown = self._breaks.step(word)
        if shown is None:
            return ""
        begins, text = shown
        if not begins:
            return text
        return "\n" * was_open + self._label + text.lstrip()

    def pause(self) -> str:
        text = self._finish()
        self._breaks.close()
        return text

    def _finish(self) -> str:
        return "\n" if self._breaks.is_open else ""


class _JsonLines(Writer):
    def _step(self, words: Sequence[Word]) -> str:
        return "".join(
            word_line(word, source=self._source, channel=self._channel) for word in words
        )


class _Tsv(Writer):
    def __init__(self, *, source: str | None = None, channel: int | None = None) -> None:
        super().__init__(source=source, channel=channel)
        self._column = "" if channel is None else f"{channel}\t"
        self.header = ("channel\t" if self._column else "") + "start\tend\tprobability\ttext\n"

    def _step(self, words: Sequence[Word]) -> str:
        return "".join(map(self._row, words))

    def _row(self, word: Word) -> str:
        start, end = (_rounded(seconds, 3) for seconds in (word.start, word.end))
        times = "\t".join("" if time is None else f"{time:.3f}" for time in (start, end))
        probability = _rounded(word.probability, 4)
        return (
            f"{self._column}{times}\t{'' if probability is None else probability}\t"
            f"{word.text.translate(_TSV_ESCAPES)}\n"
        )


class _Captions(Writer):
    """Base of the formats made of captions."""

    def __init__(self, *, source: str | None = None, channel: int | None = None) -> None:
        super().__init__(source=source, channel=channel)
        self._stream = CaptionStream()
        self._number = 0

    def _step(self, words: Sequence[Word]) -> str:
        return "".join(map(self._numbered, self._stream.step(words)))

    def _finish(self) -> str:
        return "".join(map(self._numbered, self._stream.finish()))

    def _numbered(self, caption: Caption) -> str:
        self._number += 1
        return self._caption(caption)

    def _caption(self, caption: Caption) -> str:
        raise NotImplementedError


class _Srt(_Captions):
    def _caption(self, caption: Caption) -> str:
        lines = "\n".join(caption.lines)
        return f"{self._number}\n{_span(caption, ',')}\n{self._label}{lines}\n\n"


class _Vtt(_Captions):
    header = "WEBVTT\n"

    def _caption(self, caption: Caption) -> str:
        voice = "" if self._channel is None else f"<v Channel {self._channel}>"
        lines = "\n".join(caption.lines).translate(_VTT_ESCAPES)
        return f"\n{_span(caption, '.')}\n{voice}{lines}\n"


class _Ass(_Captions):
    header = _ASS_HEADER

    def _caption(self, caption: Caption) -> str:
        start, end = (_centiseconds(seconds) for seconds in (caption.start, caption.end))
        name = "" if self._channel is None else f"Channel {self._channel}"
        lines = r"\N".join(line.translate(_ASS_ESCAPES) for line in caption.lines)
        return f"Dialogue: 0,{start},{end},Default,{name},0,0,0,,{self._label}{lines}\n"


class _Lrc(_Captions):
    """A line for each caption, and an empty one where a pause follows it."""

    def __init__(self, *, source: str | None = None, channel: int | None = None) -> None:
        super().__init__(source=source, channel=channel)
        self._end = ""

    def _caption(self, caption: Caption) -> str:
        start, end = (_minutes(seconds) for seconds in (caption.start, caption.end))
        pause = f"[{self._end}]\n" if self._end and self._end != start else ""
        self._end = end
        text = self._label + " ".join(caption.lines)
        # A bracket right behind the time would be taken for another time.
        return f"{pause}[{start}]{' ' * text.startswith('[')}{text}\n"

    def _finish(self) -> str:
        text = super()._finish()
        return text + (f"[{self._end}]\n" if self._end else "")


WRITERS: dict[str, type[Writer]] = {
    "text": _Text,
    "jsonl": _JsonLines,
    "srt": _Srt,
    "vtt": _Vtt,
    "tsv": _Tsv,
    "ass": _Ass,
    "lrc": _Lrc,
}
"""The formats that can be written while the words come: all but JSON."""


def _whole(
    format_: str, transcript: Transcript, source: str | None = None, channel: int | None = None
) -> str:
    """A transcript that is there, written at once."""
    writer = WRITERS[format_](source=source, channel=channel)
    return writer.step(transcript.words) + writer.finish()


def to_text(transcript: Transcript, *, channel: int | None = None) -> str:
    """The text, a line for each sentence or pause; nothing if there are no words.

    ``Transcript.text`` is the same in one line.
    """
    return _whole("text", transcript, channel=channel)


def to_json(
    transcript: Transcript,
    *,
    source: str | None = None,
    complete: bool = True,
    channel: int | None = None,
) -> str:
    """One indented JSON object; see the module's docstring for its keys."""
    from voxfast import _version

    document = {
        "schema": 1,
        "version": _version.version(),
        "source": source,
        **({} if channel is None else {"channel": channel}),
        "model": transcript.model,
        "language": transcript.language,
        "duration": _rounded(transcript.duration, 3),
        "skipped": _rounded(transcript.skipped, 3),
        "complete": complete,
        "text": transcript.text,
        "segments": [_segment_object(segment) for segment in transcript.segments],
        "words": [_timed_object(word) for word in transcript.words],
    }
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    return _SURROGATE.sub("\ufffd", text)


def to_jsonl(
    transcript: Transcript, *, source: str | None = None, channel: int | None = None
) -> str:
    """One line of JSON for each word."""
    return _whole("jsonl", transcript, source, channel)


def word_line(word: Word, *, source: str | None = None, channel: int | None = None) -> str:
    """One word as a line of JSON, newline included."""
    document = {"source": source, "channel": channel}
    document = {key: value for key, value in document.items() if value is not None}
    text = json.dumps({**document, **_timed_object(word)}, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub("\ufffd", text) + "\n"


def to_srt(transcript: Transcript, *, channel: int | None = None) -> str:
    """SubRip subtitles."""
    return _whole("srt", transcript, channel=channel)


def to_vtt(transcript: Transcript, *, channel: int | None = None) -> str:
    """WebVTT captions (W3C WebVTT 1)."""
    return _whole("vtt", transcript, channel=channel)


def to_ass(transcript: Transcript, *, channel: int | None = None) -> str:
    """Advanced SubStation subtitles (``ScriptType: v4.00+``); times are hundredths of a second."""
    return _whole("ass", transcript, channel=channel)


def to_lrc(transcript: Transcript, *, channel: int | None = None) -> str:
    """LRC lyrics: ``[mm:ss.xx]`` before each caption; an empty line clears it at a pause."""
    return _whole("lrc", transcript, channel=channel)


def to_tsv(transcript: Transcript, *, channel: int | None = None) -> str:
    r"""A header line, then start, end, probability and text of each word, tab-separated.

    Times are seconds with three decimals; an unknown probability is empty. In the text,
    which keeps its leading space, a tab, line feed, carriage return or backslash is written
    as ``\t``, ``\n``, ``\r`` or ``\\``.
    """
    return _whole("tsv", transcript, channel=channel)


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "jsonl": to_jsonl,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "ass": to_ass,
    "lrc": to_lrc,
}
SUFFIXES = {name: "txt" if name == "text" else name for name in FORMATS}


def timestamp(seconds: float, point: str = ".") -> str:
    """Seconds as ``HH:MM:SS.mmm``, rounded to the millisecond; hours may pass 99.

    Args:
        point: before the milliseconds: "." in WebVTT, "," in SubRip.
    """
    # Rounded once, as an integer, so that 59.9996 s is a minute and not 60 seconds.
    milliseconds = max(0, round(seconds * 1000))
    whole, fraction = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{fraction:03d}"


def _span(caption: Caption, point: str) -> str:
    """The line of times of a caption."""
    return f"{timestamp(caption.start, point)} --> {timestamp(caption.end, point)}"


def _centiseconds(seconds: float) -> str:
    """Seconds as ``H:MM:SS.cc``."""
    whole, fraction = divmod(max(0, round(seconds * 100)), 100)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}.{fraction:02d}"


def _minutes(seconds: float) -> str:
    """Seconds as ``MM:SS.cc``; minutes may pass 99."""
    whole, fraction = divmod(max(0, round(seconds * 100)), 100)
    minutes, whole = divmod(whole, 60)
    return f"{minutes:02d}:{whole:02d}.{fraction:02d}"


def _timed_object(timed: Word | Segment) -> dict[str, Any]:
    """A word as JSON has it, or what a segment has in common with one."""
    return {
        "text": timed.text,
        "start": _rounded(timed.start, 3),
        "end": _rounded(timed.end, 3),
        "probability": _rounded(timed.probability, 4),
    }


def _segment_object(segment: Segment) -> dict[str, Any]:
    """A segment as JSON has it."""
    return {**_timed_object(segment), "words": len(segment.words)}


def _rounded(value: float | None, digits: int) -> float | None:
    """A number that JSON can hold."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
