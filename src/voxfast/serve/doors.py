"""The protocols by path."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from voxfast.serve.deepgram import DeepgramDialect
from voxfast.serve.deepgram_query import deepgram_error
from voxfast.serve.dialect import Dialect, Handshake, Problem, Service
from voxfast.serve.mistral_realtime import MistralRealtime
from voxfast.serve.realtime import Realtime

__all__ = ["DOORS", "Door", "openai_error"]

NewDialect: TypeAlias = Callable[[Handshake, Service], Dialect]


def openai_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an HTTP error, in OpenAI's form."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.param,
            "code": problem.code,
        }
    }


@dataclass(frozen=True)
class Door:
    """A path on which WebSockets speak a dialect.

    Attributes:
        name: in metrics and in the log.
        path: exact.
        new: makes the dialect of a connection; may raise Problem, which refuses the connection
            with its HTTP status.
        protocols: the WebSocket subprotocols that may be chosen, if the client offers them.
        error: the JSON body of a refused connection, from the problem and the request's id.
        idle_seconds: without a frame, after which the protocol ends a connection; None: the limit
            of the server holds.
    """

    name: str
    path: str
    new: NewDialect
    protocols: tuple[str, ...] = ()
    error: Callable[[Problem, str], dict[str, Any]] = openai_error
    idle_seconds: float | None = None


DOORS: tuple[Door, ...] = (
    Door("realtime", "/v1/realtime", Realtime, ("realtime",)),
    Door("mistral", "/v1/audio/transcriptions/realtime", MistralRealtime),
    Door("deepgram", "/v1/listen", DeepgramDialect, ("token", "bearer"), deepgram_error, 10.0),
)
"""All of them; a dialect is added here."""
