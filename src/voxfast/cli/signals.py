"""What Ctrl-C, SIGTERM and SIGHUP do.

While a stream runs, the first signal asks for its end in order: no more audio is taken, the
last words are brought out and written. The second one ends at once. Outside of streams any of
them ends at once; one more, while the command is leaving, ends the process as it is.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec, Self, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Handler: TypeAlias = Callable[[int, FrameType | None], None]

GRACE_SECONDS = 1.0
"""How long the end in order may take, but for Ctrl-C on a pipe, whose last words are awaited."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal; the command's exit code is 128 and its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals into :class:`Interrupted`, so that what was transcribed is kept."""

    is_leaving = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_leaving
        if is_leaving:
            # All is written. To interrupt the closing of a model would leave a thread that uses
            # MLX behind, and MLX aborts a process that ends with one.
            os._exit(128 + number)
        is_leaving = True
        raise Interrupted(number)

    with _handlers(dict.fromkeys(_ENDING, interrupt)):
        try:
            yield
        except KeyboardInterrupt:
            is_leaving = True
            raise


class Ending:
    """The end of a stream that a signal asks for.

    ::

        with Ending(patient=is_pipe) as ending:
            block = ending.call(next, blocks)     # Interrupted, if a signal has come
            output.add(words)                     # not interrupted

    A signal raises :class:`Interrupted` within :meth:`call` only, so what is done outside of
    it is done whole. If that takes longer than twice the grace, or at the second signal, it is
    raised wherever the program is.

    Args:
        patient: whether Ctrl-C waits for the audio's own end: it reaches the producer at the
            other end of a pipe, too, whose last audio is still to come.
    """

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self._number: int | None = None  # of the first signal
        self._may_raise = False
        self._is_finishing = False
        self._is_late = False
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> Self:
        handlers = dict.fromkeys(_ENDING, self._asked)
        self._restore.enter_context(_handlers({**handlers, signal.SIGALRM: self._alarmed}))
        return self

    def __exit__(self, *exception: object) -> None:
        _alarm(0.0)
        self._restore.close()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that a signal may interrupt.

        Raises:
            Interrupted: if a signal has come.
        """
        self._may_raise = True
        try:
            if self._number is not None and (self._is_late or not self._waits):
                raise Interrupted(self._number)
            return function(*args, **kwargs)
        finally:
            self._may_raise = False

    def finishing(self) -> None:
        """From here on the last words are brought out, which has a time of its own."""
        self._is_finishing, self._is_late = True, False
        if self._number is not None:
            _alarm(0.0 if self._waits_for_words else GRACE_SECONDS)

    @property
    def interrupt(self) -> Interrupted | None:
        """What is to be raised in the end, if a signal has asked for it."""
        return None if self._number is None else Interrupted(self._number)

    @property
    def _waits(self) -> bool:
        """Whether what is going on may go on for a while after the first signal."""
        return self._is_finishing or self._waits_for_words

    @property
    def _waits_for_words(self) -> bool:
        return self._patient and self._number == signal.SIGINT

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            raise Interrupted(number)
        self._number = number
        if not (self._is_finishing and self._waits_for_words):
            _alarm(GRACE_SECONDS)
        if self._may_raise and not self._waits:
            raise Interrupted(number)

    def _alarmed(self, number: int, frame: FrameType | None) -> None:
        if self._may_raise or self._is_late:
            raise Interrupted(self._number or signal.SIGTERM)
        self._is_late = True
        _alarm(GRACE_SECONDS)


def _alarm(seconds: float) -> None:
    """Send this process SIGALRM in a while; 0: not at all."""
    if threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Set signal handlers for a while; what the parent has ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    kept = (None, signal.SIG_IGN)
    try:
        for number, handler in handlers.items():
            if before[number] not in kept or number == signal.SIGALRM:
                signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            if old not in kept or number == signal.SIGALRM:
                signal.signal(number, old or signal.SIG_DFL)
