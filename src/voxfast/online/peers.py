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
        return [session for session in self._others(asking) if session._prepare()]

    def settle(self, asking: "Session") -> None:
        """Apply what was inserted into the others by now; on the owner thread.

        The calls of those that have no step to do need not wait for the owner thread then.
        """
        for session in self._others(asking):
            session._prepare()
            session._note_settled()

    def _others(self, asking: "Session") -> "list[Session]":
        """The open ones but for one; forgets those that are closed."""
        with self._lock:
            for session in [one for one in self._sessions if not one._is_live]:
                self._sessions.discard(session)
            return [session for session in self._sessions if session is not asking]
