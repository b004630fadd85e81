"""What a protocol is made of: frames and events in, actions out.

A dialect knows its protocol and nothing else. Every method returns actions, in order: frames to
:class:`Send`, commands to the session, and at last :class:`Close`. Commands are carried out one
after the other, behind the audio before them, and answered by events:

==================  ==============================================================================
command             events
==================  ==============================================================================
:class:`Start`      :class:`Started`
:class:`Audio`      :class:`~voxfast.Word`, :class:`~voxfast.Segment`, :class:`Tentative`,
                    :class:`LanguageFound`, :class:`Processed`; with ``endpoint_ms`` also
                    :class:`~voxfast.vad.SpeechStarted`, :class:`~voxfast.vad.SpeechEnded`: the
                    last words of a turn come before the end of its speech
:class:`Commit`     the last words of the utterance, then :class:`Committed`
:class:`Clear`      :class:`Cleared`
:class:`Finish`     the last words of the stream, then :class:`Finished`
==================  ==============================================================================

A :class:`Failed` may come at any time. ``tests/test_serve_dialect.py`` has the smallest dialect.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from voxfast._pcm import SampleFormat
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = [
    "Action",
    "Audio",
    "Clear",
    "Cleared",
    "Close",
    "Commit",
    "Committed",
    "Dialect",
    "Event",
    "Failed",
    "Finish",
    "Finished",
    "Handshake",
    "LanguageFound",
    "Problem",
    "ProblemKind",
    "Processed",
    "Send",
    "Service",
    "Start",
    "Started",
    "Tentative",
    "new_id",
]


# -- Commands


@dataclass(frozen=True, slots=True)
class Start:
    """Open a session.

    In an open one, this changes the options: what was said before is written to its end first,
    and the times go on. After :class:`Finish` another stream begins, at second 0.

    Attributes:
        sample_rate: of the audio, in Hz, 1000 to 192000.
        sample_format: of its samples: a name of :data:`voxfast._pcm.SAMPLE_FORMATS`.
        channels: interleaved; their mean is heard.
        language: code or name; of those that the model knows.
        prompt: context, for models that take one.
        vocabulary: words and names that may be spoken, for models that take them.
        endpoint_ms: pause that ends a turn; None: no voice detection, no turns.
        delay_ms: how far the words follow the audio; None: the model's default.
    """

    sample_rate: int = 16_000
    sample_format: SampleFormat = "s16le"
    channels: int = 1
    language: str | None = None
    prompt: str | None = None
    vocabulary: tuple[str, ...] = ()
    endpoint_ms: float | None = None
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """Samples as the last :class:`Start` describes them; cut anywhere, inside a sample, too."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """End the utterance: its last words come at once."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the audio since the last commit, and what would be written of it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """End the stream: its last words come."""


# -- Other actions


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame to the client.

    Attributes:
        frame: text or binary.
        may_skip: whether it is left out for a client that is behind with reading, because a
            later one replaces it (tentative text).
    """

    frame: str | bytes
    may_skip: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection, behind the frames before it.

    Attributes:
        code: of a WebSocket.
        reason: at most 120 bytes.
    """

    code: int = 1000
    reason: str = ""


Command: TypeAlias = Start | Audio | Commit | Clear | Finish
Action: TypeAlias = Command | Send | Close


# -- Events, beside words, segments, and starts and ends of speech


@dataclass(frozen=True, slots=True)
class Started:
    """A :class:`Start` is carried out: its options are good."""


@dataclass(frozen=True, slots=True)
class Tentative:
    """All text behind the last word that may still change; empty if there is none."""

    text: str


@dataclass(frozen=True, slots=True)
class Processed:
    """All events of the audio that was processed have come: the last one of each round.

    Attributes:
        time: seconds of the stream that the model has heard.
    """

    time: float


@dataclass(frozen=True, slots=True)
class LanguageFound:
    """The language, as asked for or detected: at first, and when it changes."""

    language: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A :class:`Commit` is carried out.

    Attributes:
        time: seconds of the stream up to it.
    """

    time: float


@dataclass(frozen=True, slots=True)
class Cleared:
    """A :class:`Clear` is carried out."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A :class:`Finish` is carried out, or the server ends: there are no more words.

    Attributes:
        duration: seconds of audio that were received.
        language: of the stream, if it is known.
    """

    duration: float
    language: str | None = None


ProblemKind: TypeAlias = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "server_error",
]


@dataclass(eq=False)
class Problem(Exception):
    """Why something is refused, in words for a client; dialects give it their own form.

    Attributes:
        message: names the value and the remedy, never audio or text.
        code: for programs, such as ``invalid_api_key``.
        status: of HTTP.
        kind: OpenAI's ``type``.
        param: name of the parameter that is wrong, if one is.
        retry_after: seconds after which it is worth trying again; None: never.
    """

    message: str
    code: str = "invalid_request"
    status: int = 400
    kind: ProblemKind = "invalid_request_error"
    param: str | None = None
    retry_after: int | None = None

    @property
    def close_code(self) -> int:
        """The code that closes a WebSocket for it."""
        if self.status in (429, 503):
            return 1013
        return {413: 1009, 500: 1011}.get(self.status, 1008)


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong.

    Attributes:
        problem: what.
        is_final: whether the connection ends by it: the bridge closes it behind the frames that
            the dialect answers, with ``problem.close_code``. Otherwise the command that failed
            changed nothing.
        command: what failed, if it was a command.
    """

    problem: Problem
    is_final: bool = True
    command: Command | None = None


Event: TypeAlias = (
    Started
    | SpeechStarted
    | SpeechEnded
    | Word
    | Segment
    | Tentative
    | Processed
    | LanguageFound
    | Committed
    | Cleared
    | Finished
    | Failed
)


# -- What a dialect is made with


@dataclass(frozen=True, slots=True)
class Handshake:
    """How a client has come.

    Attributes:
        request_id: for answers that hold one; it is in the log, too.
        query: all values of each parameter, in order; keys for the server are not among them.
        headers: by lower-case name; keys for the server are not among them.
    """

    request_id: str
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        """The last value of a parameter; None if it is not there."""
        return self.query.get(name, (None,))[-1]


@dataclass(frozen=True, slots=True)
class Service:
    """What the server offers.

    Attributes:
        model: its name.
        description: one line on the model, for humans.
        created: when the model was loaded, in seconds of Unix time.
        delays_ms: the delays that can be asked for; empty if any can.
        languages: codes of the languages that the model knows; empty if that is not known.
        message_bytes: the longest frame that a client may send.
        aliases: further names that the model answers to.
    """

    model: str
    description: str = ""
    created: int = 0
    delays_ms: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()
    message_bytes: int = 1 << 24
    aliases: tuple[str, ...] = ()

    def check_model(self, name: str | None, hosted: tuple[str, ...] = ()) -> None:
        """Check that a client may ask for a model by this name.

        Args:
            name: None and "" ask for any.
            hosted: beginnings of the names that the protocol's own service has; apps have them
                built in, so the loaded model answers to them, under its own name.

        Raises:
            Problem: for another name.
        """
        if not name or name in (self.model, *self.aliases) or name.startswith(hosted):
            return
        raise Problem(
            f"there is no model {name!r:.100}; this server has {self.model!r}",
            "model_not_found",
            404,
            "not_found_error",
            "model",
        )

    def nearest_delay(self, milliseconds: float) -> int:
        """The delay that is nearest to this one; the longer of two."""
        if not self.delays_ms:
            return max(0, min(10_000, round(milliseconds)))
        return min(self.delays_ms, key=lambda delay: (abs(delay - milliseconds), -delay))


class Dialect(Protocol):
    """A protocol, for one connection. Its methods raise nothing, whatever a client sends."""

    def open(self) -> Iterable[Action]:
        """The connection is there."""
        ...

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """A frame of the client: text or binary on a WebSocket, any piece of a TCP stream.

        An empty piece is the end of a TCP stream, of whose answers the client may still read.
        """
        ...

    def event(self, event: Event) -> Iterable[Action]:
        """Something has happened in the session."""
        ...


def new_id(prefix: str) -> str:
    """A fresh name of an event, item or session: the prefix and 96 random bits."""
    return f"{prefix}_{secrets.token_hex(12)}"
