"""The forms of a transcript on OpenAI's HTTP interface, and the fields that ask for them.

Pure functions: fields and words in, JSON and text out.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from voxfast.formats import to_srt, to_vtt
from voxfast.serve.dialect import Problem
from voxfast.timed import Segment, Transcript, Word

__all__ = [
    "FORMATS",
    "Wanted",
    "error_event",
    "logprobs",
    "read_fields",
    "server_sent",
    "to_body",
    "word_object",
]

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
MEDIA_TYPES = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
HOSTED_MODELS = ("whisper-", "gpt-")
MOST_TERMS, LONGEST_TERM = 1000, 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for.

    Attributes:
        model: the name that was given; None: any.
        format: one of :data:`FORMATS`.
        stream: whether words are sent as they come.
        language, prompt, vocabulary, delay_ms: see :class:`voxfast.serve.dialect.Start`.
        endpoint_ms: a pause at which the text is cut; None: as the model likes it.
        words, segments: whether verbose_json holds them.
        logprobs: whether probabilities of words are wanted.
    """

    model: str | None = None
    format: str = "json"
    stream: bool = False
    language: str | None = None
    prompt: str | None = None
    vocabulary: tuple[str, ...] = ()
    delay_ms: int | None = None
    endpoint_ms: float | None = None
    words: bool = False
    segments: bool = True
    logprobs: bool = False


def read_fields(fields: Sequence[tuple[str, str]]) -> Wanted:
    """What the fields of a form ask for; unknown ones are left alone, as the service does.

    Raises:
        Problem: for a value that cannot be, or something that voxfast does not do.
    """

    def each(name: str) -> list[str]:
        """Values of a field that may be repeated, with or without brackets behind its name."""
        return [value for field, value in fields if field in (name, f"{name}[]")]

    def one(name: str) -> str | None:
        values = [value for field, value in fields if field == name]
        return values[-1] if values else None

    format_ = one("response_format") or "json"
    if format_ not in FORMATS:
        raise _wrong("response_format", format_, f"one of {', '.join(FORMATS)}")
    if each("known_speaker_names") or each("known_speaker_references"):
        raise Problem(
            "speakers are not told apart; leave known_speaker_names out",
            "unsupported_parameter",
            param="known_speaker_names",
        )
    grains = each("timestamp_granularities")
    for grain in grains:
        if grain not in ("word", "segment"):
            raise _wrong("timestamp_granularities", grain, "word or segment")
    if grains and format_ != "verbose_json":
        raise Problem(
            "timestamp_granularities needs response_format=verbose_json",
            "invalid_value",
            param="timestamp_granularities",
        )
    included = each("include")
    for name in included:
        if name != "logprobs":
            raise _wrong("include", name, "logprobs")
    if included and format_ != "json":
        raise Problem(
            "include=logprobs needs response_format=json", "invalid_value", param="include"
        )
    languages = [code for code in (*each("language"), *each("languages")) if code]
    return Wanted(
        model=one("model"),
        format=format_,
        stream=_boolean("stream", one("stream")),
        # Of several, the model finds the right one itself.
        language=_short("language", languages[0]) if len(languages) == 1 else None,
        prompt=one("prompt") or None,
        vocabulary=_terms(each("keywords")),
        delay_ms=_integer("delay_ms", one("delay_ms"), 0, 10_000),
        endpoint_ms=_pause(fields),
        words="word" in grains,
        segments=not grains or "segment" in grains,
        logprobs=bool(included),
    )


def to_body(wanted: Wanted, transcript: Transcript) -> tuple[str, str]:
    """A whole answer: its text and media type."""
    media = MEDIA_TYPES[wanted.format]
    if wanted.format == "text":
        return transcript.text + "\n", media
    if wanted.format == "srt":
        return to_srt(transcript), media
    if wanted.format == "vtt":
        return to_vtt(transcript), media
    document: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration)}
    if wanted.format == "verbose_json":
        document = {
            "task": "transcribe",
            "language": transcript.language or wanted.language or "",
            "duration": round(transcript.duration, 3),
            **document,
        }
        if wanted.segments:
            segments = enumerate(transcript.segments)
            document["segments"] = [segment_object(number, each) for number, each in segments]
        if wanted.words:
            document["words"] = [word_object(word) for word in transcript.words]
    if wanted.logprobs:
        document["logprobs"] = logprobs(transcript.words)
    return json.dumps(document, ensure_ascii=True, allow_nan=False), media


def usage(seconds: float) -> dict[str, Any]:
    """What was used, in OpenAI's form."""
    return {"type": "duration", "seconds": round(seconds, 3)}


def segment_object(number: int, segment: Segment) -> dict[str, Any]:
    """A segment of verbose_json; what voxfast does not know is left out or neutral."""
    known = [word.probability for word in segment.words if word.probability is not None]
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": sum(map(logarithm, known)) / len(known) if known else None,
        "compression_ratio": None,
        "no_speech_prob": None,
    }


def word_object(word: Word) -> dict[str, Any]:
    """A word with its times, and its probability where OpenAI has none."""
    probability = word.probability
    return {
        "word": word.text.strip(),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": None if probability is None else round(probability, 4),
    }


def logprobs(words: Iterable[Word]) -> list[dict[str, Any]]:
    """Words as OpenAI has tokens; a word without a probability has none."""
    return [
        {
            "token": word.text,
            "logprob": logarithm(word.probability),
            "bytes": [*word.text.encode("utf-8", "replace")],
        }
        for word in words
        if word.probability is not None
    ]


def logarithm(probability: float) -> float:
    """Of a probability; a number that JSON can hold."""
    return round(math.log(max(probability, 1e-30)), 6)


def server_sent(event: dict[str, Any]) -> bytes:
    """One event of a stream of server-sent events."""
    return f"data: {json.dumps(event, ensure_ascii=True, allow_nan=False)}\n\n".encode()


def error_event(problem: Problem) -> bytes:
    """A problem in the middle of a stream."""
    error = {
        "message": problem.message,
        "type": problem.kind,
        "param": problem.param,
        "code": problem.code,
    }
    return server_sent({"type": "error", "error": error})


def _wrong(name: str, value: str, expected: str) -> Problem:
    return Problem(f"{name} {value!r:.100}; expected {expected}", "invalid_value", param=name)


def _boolean(name: str, value: str | None) -> bool:
    if value is None or value.lower() in ("", "false", "0"):
        return False
    if value.lower() in ("true", "1"):
        return True
    raise _wrong(name, value, "true or false")


def _integer(name: str, value: str | None, least: int, most: int) -> int | None:
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise _wrong(name, value, f"an integer from {least} to {most}")
    if not least <= int(value) <= most:
        raise _wrong(name, value, f"{least} to {most}")
    return int(value)


def _short(name: str, value: str) -> str:
    if len(value) > LONGEST_TERM:
        raise _wrong(name, value, f"at most {LONGEST_TERM} characters")
    return value


def _terms(terms: list[str]) -> tuple[str, ...]:
    if len(terms) > MOST_TERMS:
        raise _wrong("keywords", f"{len(terms)} of them", f"at most {MOST_TERMS}")
    return tuple(_short("keywords", term) for term in terms if term)


def _pause(fields: Sequence[tuple[str, str]]) -> float | None:
    """The pause of ``chunking_strategy``; None for "auto" or without one."""
    values = dict(fields)
    kind = values.get("chunking_strategy") or values.get("chunking_strategy[type]") or "auto"
    if kind == "auto":
        return None
    if kind != "server_vad":
        raise _wrong("chunking_strategy", kind, "auto or server_vad")
    name = "chunking_strategy[silence_duration_ms]"
    return _integer(name, values.get(name), 32, 60_000) or 500
