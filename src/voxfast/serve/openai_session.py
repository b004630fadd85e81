"""The options of OpenAI's transcription sessions, in their two forms."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from voxfast._pcm import SampleFormat
from voxfast.serve import frames
from voxfast.serve.dialect import Problem, Service, Start
from voxfast.serve.forms import HOSTED_MODELS

__all__ = ["SessionOptions", "default_options", "read_beta", "read_session"]

LOGPROBS = "item.input_audio_transcription.logprobs"
RATES = (8000, 16_000, 24_000, 48_000)
DEFAULT_PAUSE_MS = 500
PADDING_MS = 100
"""Of speech, by the voice detector; a client cannot change it."""

# The present name, and that of the beta.
_FORMATS: dict[str, tuple[str, SampleFormat]] = {
    "audio/pcm": ("pcm16", "s16le"),
    "audio/pcmu": ("g711_ulaw", "mulaw"),
    "audio/pcma": ("g711_alaw", "alaw"),
}
_EAGERNESS_MS = {"low": 1000, "medium": 500, "auto": 500, "high": 300}
_DELAYS_MS = {"minimal": 0, "low": 240, "medium": None, "high": 960, "xhigh": 2400}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a client has asked for.

    Attributes:
        format: a name of the present interface.
        rate: in Hz.
        model: the name to show.
        delay: a word of the interface, or milliseconds.
        pause_ms: of silence that ends a turn; None: the client commits.
        logprobs: whether probabilities are to be sent.
    """

    model: str
    format: str = "audio/pcm"
    rate: int = 24_000
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    delay: str | None = None
    pause_ms: float | None = DEFAULT_PAUSE_MS
    logprobs: bool = False

    def start(self, service: Service) -> Start:
        """The session that they ask for."""
        delay = None if self.delay is None else _DELAYS_MS[self.delay]
        return Start(
            sample_rate=self.rate,
            sample_format=_FORMATS[self.format][1],
            language=self.language,
            prompt=self.prompt,
            vocabulary=self.keywords,
            endpoint_ms=self.pause_ms,
            delay_ms=None if delay is None else service.nearest_delay(delay),
        )

    def to_session(self) -> dict[str, Any]:
        """The present form, with what is in effect."""
        format_: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
            format_["rate"] = self.rate
        return {
            "object": "realtime.transcription_session",
            "type": "transcription",
            "include": [LOGPROBS] if self.logprobs else None,
            "audio": {
                "input": {
                    "format": format_,
                    "transcription": {
                        **self._transcription(),
                        "keywords": [*self.keywords],
                        "delay": self.delay,
                    },
                    "turn_detection": self._turns(),
                    "noise_reduction": None,
                }
            },
        }

    def to_beta(self) -> dict[str, Any]:
        """The form of the beta."""
        return {
            "object": "realtime.transcription_session",
            "input_audio_format": _FORMATS[self.format][0],
            "input_audio_transcription": self._transcription(),
            "turn_detection": self._turns(),
            "include": [LOGPROBS] if self.logprobs else None,
        }

    def _transcription(self) -> dict[str, Any]:
        return {"model": self.model, "language": self.language, "prompt": self.prompt}

    def _turns(self) -> dict[str, Any] | None:
        if self.pause_ms is None:
            return None
        return {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": PADDING_MS,
            "silence_duration_ms": round(self.pause_ms),
        }


def default_options(service: Service) -> SessionOptions:
    """Those of a client that asks for nothing."""
    return SessionOptions(service.model)


def read_session(
    event: Mapping[str, Any], options: SessionOptions, service: Service
) -> SessionOptions:
    """The options after a ``session.update``; what is absent stays. Raises Problem."""
    session = _session(event)
    if session.get("type") not in (None, "transcription"):
        raise Problem(
            "this server transcribes; session.type must be transcription",
            "unsupported_session_type",
            param="session.type",
        )
    options = _include(session, options)
    audio = frames.obj(session.get("audio"), "session.audio") or {}
    given = frames.obj(audio.get("input"), "session.audio.input") or {}
    if (format_ := frames.obj(given.get("format"), "session.audio.input.format")) is not None:
        options = _format(format_, options)
    if "transcription" in given:
        options = _transcription(
            given["transcription"], "session.audio.input.transcription", options, service
        )
    if "turn_detection" in given:
        options = _turns(given["turn_detection"], "session.audio.input.turn_detection", options)
    return options


def read_beta(
    event: Mapping[str, Any], options: SessionOptions, service: Service
) -> SessionOptions:
    """The options after a ``transcription_session.update``. Raises Problem."""
    session = _session(event)
    options = _include(session, options)
    if (name := session.get("input_audio_format")) is not None:
        known = {beta: present for present, (beta, _) in _FORMATS.items()}
        if not isinstance(name, str) or name not in known:
            raise _one_of("session.input_audio_format", known)
        options = replace(options, format=known[name], rate=24_000 if name == "pcm16" else 8000)
    if "input_audio_transcription" in session:
        options = _transcription(
            session["input_audio_transcription"],
            "session.input_audio_transcription",
            options,
            service,
        )
    if "turn_detection" in session:
        options = _turns(session["turn_detection"], "session.turn_detection", options)
    return options


def _session(event: Mapping[str, Any]) -> dict[str, Any]:
    session = frames.obj(event.get("session"), "session")
    if session is None:
        raise Problem("session must be an object", "invalid_value", param="session")
    return session


def _include(session: Mapping[str, Any], options: SessionOptions) -> SessionOptions:
    if "include" not in session:
        return options
    names = frames.terms(session["include"], "session.include")
    for name in names:
        if name != LOGPROBS:
            raise _one_of("session.include", (LOGPROBS,))
    return replace(options, logprobs=bool(names))


def _format(value: Mapping[str, Any], options: SessionOptions) -> SessionOptions:
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise _one_of("session.audio.input.format.type", _FORMATS)
    rate = value.get("rate")
    if kind != "audio/pcm":
        if rate not in (None, 8000):
            raise _one_of("session.audio.input.format.rate", (8000,))
        return replace(options, format=kind, rate=8000)
    if rate is None:
        rate = 24_000
    if type(rate) is not int or rate not in RATES:
        raise _one_of("session.audio.input.format.rate", RATES)
    return replace(options, format=kind, rate=rate)


def _transcription(
    value: Any, name: str, options: SessionOptions, service: Service
) -> SessionOptions:
    """What is absent stays; null is the default."""
    given = frames.obj(value, name) or {}
    if "model" in given:
        service.check_model(frames.text(given["model"], f"{name}.model"), HOSTED_MODELS)
    if "language" in given:
        options = replace(options, language=frames.text(given["language"], f"{name}.language"))
    elif len(languages := frames.terms(given.get("languages"), f"{name}.languages")) == 1:
        options = replace(options, language=languages[0])
    if "prompt" in given:
        options = replace(options, prompt=frames.text(given["prompt"], f"{name}.prompt"))
    if "keywords" in given:
        options = replace(options, keywords=frames.terms(given["keywords"], f"{name}.keywords"))
    if "delay" in given:
        delay = frames.text(given["delay"], f"{name}.delay")
        if delay is not None and delay not in _DELAYS_MS:
            raise _one_of(f"{name}.delay", _DELAYS_MS)
        options = replace(options, delay=delay)
    return options


def _turns(value: Any, name: str, options: SessionOptions) -> SessionOptions:
    given = frames.obj(value, name)
    if given is None:
        return replace(options, pause_ms=None)
    kind = given.get("type", "server_vad")
    if kind == "semantic_vad":
        eagerness = given.get("eagerness") or "auto"
        if not isinstance(eagerness, str) or eagerness not in _EAGERNESS_MS:
            raise _one_of(f"{name}.eagerness", _EAGERNESS_MS)
        return replace(options, pause_ms=_EAGERNESS_MS[eagerness])
    if kind != "server_vad":
        raise _one_of(f"{name}.type", ("server_vad", "semantic_vad"))
    frames.number(given.get("threshold"), f"{name}.threshold", 0, 1)
    frames.number(given.get("prefix_padding_ms"), f"{name}.prefix_padding_ms", 0, 60_000)
    pause = frames.number(
        given.get("silence_duration_ms"), f"{name}.silence_duration_ms", 32, 60_000
    )
    return replace(options, pause_ms=DEFAULT_PAUSE_MS if pause is None else pause)


def _one_of(name: str, known: Any) -> Problem:
    return Problem(
        f"{name} must be one of {', '.join(map(str, known))}", "invalid_value", param=name
    )
