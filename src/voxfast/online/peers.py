"""The open sessions of a model, which share passes over its weights."""

from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from voxfast.online.session import Session

__all__ = ["Peers"]


class Peers:
    """The open sessions of a model.

    A step that one session asks for takes along every other one that has audio due, whoever
    drives it: sixteen live streams cost little more than one. Each of them gets at least one row
    of every pass, so none waits for another's backlog. Sessions that nobody holds are forgotten.
    """

    def __init__(self) -> None:
        self._sessions: WeakSet[Session] = WeakSet()
        self._lock = Lock()

    def add(self, session: "Session") -> None:
        """Take a new session into account; from any thread."""
        with self._lock:
            self._sessions.add(session)

    def due(self, asking: "Session") -> "list[Session]":
        """The others that have a step to do, with what was inserted by now; on the owner thread."""
        with self._lock:
            others = [session for session in self._sessions if session is not asking]
        due = []
        for session in others:
            if not session._is_live:
                with self._lock:
                    self._sessions.discard(session)
            elif session._prepare():
                due.append(session)
        return due
