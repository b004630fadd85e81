"""A client and a session for dialects without a server: frames in, frames out, in one thread."""

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from voxfast.serve.dialect import (
    Action,
    Audio,
    Clear,
    Cleared,
    Close,
    Command,
    Commit,
    Committed,
    Dialect,
    Event,
    Failed,
    Finish,
    Finished,
    Problem,
    Processed,
    Send,
    Service,
    Start,
    Started,
    Tentative,
)
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

SERVICE = Service("voxtral-numbers", created=7, delays_ms=(240, 480, 960))


@dataclass
class Talk:
    """A dialect, and a session that hears a word in every piece of audio.

    Attributes:
        commands: that the dialect has given.
        frames: that it has sent, parsed.
        closed: how it ended.
        refuses: whether the session takes no options.
        holds: whether events wait for :meth:`release`.
    """

    dialect: Dialect
    commands: list[Command] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    closed: Close | None = None
    refuses: Callable[[Start], bool] = lambda options: False
    holds: bool = False
    _waiting: list[Command] = field(default_factory=list)
    _options: Start | None = None
    _words: list[Word] = field(default_factory=list)
    _time: float = 0.0
    _speaks: bool = False

    def __post_init__(self) -> None:
        self._do(self.dialect.open())

    def send(self, *frames: str | bytes | dict[str, Any]) -> list[dict[str, Any]]:
        """Send frames; what comes back."""
        before = len(self.frames)
        for frame in frames:
            if self.closed is None:
                self._do(
                    self.dialect.receive(json.dumps(frame) if isinstance(frame, dict) else frame)
                )
        return self.frames[before:]

    def tell(self, *events: Event) -> list[dict[str, Any]]:
        """Let the dialect know of events; what comes back."""
        before = len(self.frames)
        for event in events:
            self._do(self.dialect.event(event))
        return self.frames[before:]

    def release(self) -> list[dict[str, Any]]:
        """Carry out the commands that wait; what comes back."""
        before = len(self.frames)
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            self.tell(*self._carry_out(command))
        return self.frames[before:]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All frames of a type."""
        return [frame for frame in self.frames if frame["type"] == kind]

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self.closed is not None:
                return
            match action:
                case Send(frame):
                    assert isinstance(frame, str)
                    event = json.loads(frame.encode(), parse_constant=_no_constant)
                    assert isinstance(event["type"], str)
                    self.frames.append(event)
                case Close():
                    self.closed = action
                case Start() | Audio() | Commit() | Clear() | Finish():
                    self.commands.append(action)
                    if self.holds:
                        self._waiting.append(action)
                    else:
                        self.tell(*self._carry_out(action))
                case _:
                    raise AssertionError(action)

    def _carry_out(self, command: Command) -> list[Event]:
        if isinstance(command, Start):
            if self.refuses(command):
                return [Failed(Problem("no", "invalid_value", param="x"), False, command)]
            self._options = command
            return [Started()]
        if isinstance(command, Finish):
            words, self._words = self._words, []
            segment = [Segment(tuple(words))] if words else []
            was_open, self._options = self._options is not None, None
            return [*segment, Finished(self._time if was_open else 0.0)]
        if isinstance(command, Clear):
            return [Cleared()]
        if self._options is None:
            return [Failed(Problem("no session", "no_session"))]
        if isinstance(command, Commit):
            return [Committed(self._time)]
        if not command.data:
            return []
        self._time += 1
        word = Word(f" w{round(self._time)}", self._time - 0.5, self._time, 0.5)
        self._words.append(word)
        if self._options.endpoint_ms is None:
            return [word, Tentative("maybe"), Processed(self._time)]
        self._speaks = not self._speaks
        if self._speaks:
            return [SpeechStarted(word.start), word]
        segment = Segment(tuple(self._words))
        self._words = []
        return [word, segment, SpeechEnded(word.end)]


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


# -- Hostile clients

_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7.5, -0.0, 1e308, 10**40, 10**400),
    *("", "auto", "en", "\ud800", "\0", "A" * 5000, "😀", "true", "audio/pcm", "server_vad"),
    *([], {}, [None], [[]], {"type": None}, {"type": {}}, ["a", 1], {"a": {"b": []}}),
]
_FAULTS = ["none"] * 4 + ["value", "value", "gone", "cut", "bytes", "any"]
_BYTES = [b"", b"\0", b"\xff\xfe", b"{}", b"[]", bytes(20)]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, frames: list[dict[str, Any]]) -> str | bytes:
    """A frame of these, sound or with a fault."""
    frame = copy.deepcopy(draw(st.sampled_from(frames)))
    fault = draw(st.sampled_from(_FAULTS))
    path = draw(st.sampled_from(_paths(frame)[1:]))
    inner: Any = frame
    for key in path[:-1]:
        inner = inner[key]
    if fault == "value":
        inner[path[-1]] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
    elif fault == "gone":
        del inner[path[-1]]
    elif fault == "any":
        return json.dumps(draw(st.sampled_from(_VALUES)))
    text = json.dumps(frame)
    if fault == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if fault == "bytes":
        return draw(st.sampled_from(_BYTES))
    return text


def hostile(frames: list[dict[str, Any]]) -> st.SearchStrategy[list[str | bytes]]:
    """Frames in any order, some of them with faults."""
    return st.lists(mutated(frames), max_size=12)
