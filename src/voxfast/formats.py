"""Transcripts as text, JSON, JSON Lines, SubRip, WebVTT and TSV. Pure functions.

The JSON of a transcript, in this order of keys:

==============  ====================================================================
``schema``      1; rises when a key changes its meaning
``version``     of voxfast
``source``      what was transcribed: a file name; null if it has none
``model``       name of the model
``language``    that was asked for or detected, or null
``duration``    seconds of audio that were heard
``complete``    false if the audio was damaged or the transcription interrupted
``text``        the whole text
``words``       a list of ``{"text", "start", "end", "probability"}``
==============  ====================================================================

A word's ``text`` carries its own leading space, so that joined words give the text; its
``start`` and ``end`` are seconds of the audio, to the millisecond; its ``probability`` is
0 to 1, or null. A line of JSON Lines is one word in the same form, with ``source`` first if
there is one.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from voxfast._captions import Caption, captions
from voxfast.timed import Transcript, Word

__all__ = [
    "Caption",
    "captions",
    "timestamp",
    "to_json",
    "to_jsonl",
    "to_srt",
    "to_text",
    "to_tsv",
    "to_vtt",
    "word_line",
]

_TSV_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def to_text(transcript: Transcript) -> str:
    """The text and a newline; nothing if there are no words."""
    return f"{transcript.text}\n" if transcript.text else ""


def to_json(transcript: Transcript, *, source: str | None = None, complete: bool = True) -> str:
    """One indented JSON object; see the module's docstring for its keys."""
    from voxfast import _version

    document = {
        "schema": 1,
        "version": _version.version(),
        "source": source,
        "model": transcript.model,
        "language": transcript.language,
        "duration": _rounded(transcript.duration, 3),
        "complete": complete,
        "text": transcript.text,
        "words": [_word_object(word) for word in transcript.words],
    }
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def to_jsonl(transcript: Transcript, *, source: str | None = None) -> str:
    """One line of JSON for each word."""
    return "".join(word_line(word, source=source) for word in transcript.words)


def word_line(word: Word, *, source: str | None = None) -> str:
    """One word as a line of JSON, newline included."""
    document = _word_object(word)
    if source is not None:
        document = {"source": source, **document}
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{number}\n{_span(caption, ',')}\n{_lines(caption)}\n\n"
        for number, caption in enumerate(captions(transcript.words), 1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT captions (W3C WebVTT 1)."""
    cues = (
        f"\n{_span(caption, '.')}\n{_lines(caption).translate(_VTT_ESCAPES)}\n"
        for caption in captions(transcript.words)
    )
    return "WEBVTT\n" + "".join(cues)


def to_tsv(transcript: Transcript) -> str:
    r"""A header line, then start, end, probability and text of each word, tab-separated.

    Times are seconds with three decimals; an unknown probability is empty. In the text,
    which keeps its leading space, a tab, line feed, carriage return or backslash is written
    as ``\t``, ``\n``, ``\r`` or ``\\``.
    """
    rows = ["start\tend\tprobability\ttext\n"]
    for word in transcript.words:
        probability = _rounded(word.probability, 4)
        rows.append(
            f"{word.start:.3f}\t{word.end:.3f}\t{'' if probability is None else probability}\t"
            f"{word.text.translate(_TSV_ESCAPES)}\n"
        )
    return "".join(rows)


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "jsonl": to_jsonl,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
}


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
    """The line of times of a caption; its end comes after its start when rounded, too."""
    start = round(caption.start * 1000)
    end = max(round(caption.end * 1000), start + 1)
    return f"{timestamp(start / 1000, point)} --> {timestamp(end / 1000, point)}"


def _lines(caption: Caption) -> str:
    return "\n".join(caption.lines)


def _word_object(word: Word) -> dict[str, Any]:
    """A word as JSON has it."""
    return {
        "text": word.text,
        "start": _rounded(word.start, 3),
        "end": _rounded(word.end, 3),
        "probability": _rounded(word.probability, 4),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    """A number that JSON can hold."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
