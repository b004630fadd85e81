"""The query of Deepgram's ``/v1/listen``."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from voxfast._pcm import SampleFormat
from voxfast.serve import frames
from voxfast.serve.dialect import Handshake, Problem, Service, Start

__all__ = [
    "HOSTED",
    "Listening",
    "check_refused",
    "deepgram_error",
    "expected_terms",
    "flag",
    "language",
    "listening",
    "number",
]

HOSTED = ("nova", "enhanced", "base", "general", "whisper")
"""Beginnings of the names that Deepgram's own models have."""
# Deepgram's default of 10 ms would end turns inside of words. Of voxtral-numbers' words in the 40
# evaluation clips, 2.7 % are wrong without endpoints, 5.3 % with 32 ms, 3.1 % with 100, 2.7 % with
# 200 and 300.
ENDPOINT_MS = 300.0
LEAST_ENDPOINT_MS = 100.0
QUIET_MS = 1500.0  # ends a turn without anybody being told, for `vad_events` alone

_ENCODINGS: dict[str, SampleFormat] = {
    "linear16": "s16le",
    "linear32": "s32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
_TELEPHONE = ("mulaw", "alaw")
# What would have to change the text, or send it elsewhere.
_REFUSED = ("callback", "redact", "search", "replace", "diarize", "detect_entities", "multichannel")
_KEYWORD = re.compile(r"(.+?)(?::(-?[0-9]+(?:\.[0-9]+)?))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a client asks for in the query.

    Attributes:
        start: the session.
        interim: whether interim results are sent.
        tells_end: whether a result says that a turn has ended (``speech_final``).
        tells_start: whether ``SpeechStarted`` is sent.
        utterance_end: seconds without a word before ``UtteranceEnd``; None: it is not sent.
    """

    start: Start
    interim: bool
    tells_end: bool
    tells_start: bool
    utterance_end: float | None


def listening(handshake: Handshake, service: Service) -> Listening:
    """What the query of a connection asks for.

    Raises:
        Problem: for a value that cannot be, or what this server does not do.
    """
    check_refused(handshake)
    service.check_model(handshake.one("model"), HOSTED)
    interim, tells_start = flag(handshake, "interim_results"), flag(handshake, "vad_events")
    endpoint_ms = _endpoint(handshake)
    utterance_ms = number(handshake, "utterance_end_ms", 1000, 60_000)
    if utterance_ms is not None and not interim:
        raise _refusal("utterance_end_ms", str(utterance_ms), "it needs interim_results=true")
    pause_ms: float | None = endpoint_ms
    if pause_ms is None and (utterance_ms is not None or tells_start):
        pause_ms = QUIET_MS if utterance_ms is None else utterance_ms
    start = Start(
        language=language(handshake.one("language")),
        vocabulary=expected_terms(handshake),
        endpoint_ms=pause_ms,
        delay_ms=number(handshake, "delay_ms", 0, 10_000),
    )
    return Listening(
        start=_sound(handshake, start),
        interim=interim,
        tells_end=endpoint_ms is not None,
        tells_start=tells_start,
        utterance_end=None if utterance_ms is None else utterance_ms / 1000,
    )


def check_refused(handshake: Handshake, more: Iterable[str] = ()) -> None:
    """Raise Problem for a parameter that asks for what this server does not do.

    Args:
        more: parameters beside those that change what is written, or send it elsewhere.
    """
    for name in (*_REFUSED, *more):
        value = handshake.one(name)
        if value is not None and value.lower() not in ("", "false"):
            raise _refusal(name, value, "this server does not do it")


def expected_terms(handshake: Handshake) -> tuple[str, ...]:
    """What ``keyterm`` and ``keywords`` name; weights are Deepgram's own."""
    named = [*handshake.query.get("keyterm", ()), *_keywords(handshake)]
    return frames.terms(named, "keyterm")


def _sound(handshake: Handshake, start: Start) -> Start:
    """The options with the form of the audio."""
    name = handshake.one("encoding")
    if name is None:
        raise Problem(
            "audio in a container is not accepted here: send PCM, and say "
            f"encoding={', '.join(_ENCODINGS)} and sample_rate",
            param="encoding",
        )
    if name not in _ENCODINGS:
        raise _refusal("encoding", name, f"this server accepts {', '.join(_ENCODINGS)}")
    rate = number(handshake, "sample_rate", 1000, 192_000)
    if rate is None:
        if name not in _TELEPHONE:
            raise Problem(f"encoding={name} needs a sample_rate", param="sample_rate")
        rate = 8000
    channels = number(handshake, "channels", 1, 8) or 1
    return replace(start, sample_rate=rate, sample_format=_ENCODINGS[name], channels=channels)


def _endpoint(handshake: Handshake) -> float | None:
    """Milliseconds of a pause that ends a turn; None: turns are not told."""
    value = handshake.one("endpointing")
    if value is None or value.lower() == "true":
        return ENDPOINT_MS
    if value.lower() == "false":
        return None
    return max(LEAST_ENDPOINT_MS, number(handshake, "endpointing", 0, 60_000) or 0)


def _keywords(handshake: Handshake) -> Iterator[str]:
    for value in handshake.query.get("keywords", ()):
        match = _KEYWORD.fullmatch(value)
        if match is None:
            raise _refusal("keywords", value, "a keyword has letters")
        if match[2] and float(match[2]) < 0:
            raise _refusal("keywords", value, "words can be expected, not suppressed")
        yield match[1]


def language(value: str | None) -> str | None:
    """The language that is asked for; ``multi`` lets the model find it."""
    return None if value is None or value.lower() == "multi" else value


def flag(handshake: Handshake, name: str) -> bool:
    """A parameter that is true or false; raises Problem for anything else."""
    value = (handshake.one(name) or "false").lower()
    if value not in ("true", "false"):
        raise _refusal(name, value, "say true or false")
    return value == "true"


def number(handshake: Handshake, name: str, least: int, most: int) -> int | None:
    """A parameter that is a whole number; raises Problem for anything else."""
    value = handshake.one(name)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not least <= int(value) <= most:
        raise _refusal(name, value, f"say {least} to {most}")
    return int(value)


def _refusal(name: str, value: str, remedy: str) -> Problem:
    return Problem(f"{name}={value!r:.60}: {remedy}", param=name)


def deepgram_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an HTTP error, in Deepgram's form."""
    code = "INVALID_AUTH" if problem.status == 401 else problem.code.upper()
    return {"err_code": code, "err_msg": problem.message, "request_id": request_id}
