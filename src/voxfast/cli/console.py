"""What the command says, and to whom: results to stdout, everything else to stderr."""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from voxfast.errors import InvalidOptionError, VoxfastError

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class UsageError(Exception):
    """Arguments that do not fit together."""


class StdoutError(Exception):
    """Stdout takes no more: its reader went away, its disk is full, it was closed."""


def say(text: str, *, encoding: str | None = None) -> None:
    """Write to stdout at once, all of it, also to a pipe that does not block.

    Args:
        text: characters that the encoding lacks are shown as their codes.
        encoding: None: the terminal's.

    Raises:
        StdoutError: if that is not possible; its cause is the OSError.
    """
    stream = sys.stdout
    encoding = encoding or getattr(stream, "encoding", None) or "utf-8"
    data = text.encode(encoding, "backslashreplace")
    try:
        try:
            descriptor = stream.fileno()
        except (OSError, AttributeError):  # a stand-in, as programs and tests put it there
            if hasattr(stream, "buffer"):
                stream.buffer.write(data)
            else:
                stream.write(data.decode(encoding))
            stream.flush()
        else:
            stream.flush()
            write_all(descriptor, data)
    except OSError as error:
        raise StdoutError(f"stdout: {error.strerror}") from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, waiting for a reader where the descriptor itself would not.

    Raises:
        OSError: if that is not possible.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def note(text: str) -> None:
    """Write a line to stderr; not being able to is no reason to stop."""
    with contextlib.suppress(OSError, UnicodeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Write an error to stderr, in one line."""
    note(f"voxfast: error: {' '.join(text.split())}")


def describe(error: Exception) -> str:
    """An error in words for a user."""
    if isinstance(error, VoxfastError | UsageError | StdoutError | ImportError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (this is a bug; --debug shows where)"


def exit_code(error: Exception) -> int:
    """The exit code of a command that an error ended: 2 for wrong usage, else 1."""
    return 2 if isinstance(error, UsageError | InvalidOptionError) else 1


def bar(*columns: "str | ProgressColumn") -> "Progress":
    """A bar on stderr, gone when it is done; results go to stdout as they are, not through it."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextlib.contextmanager
def progress_bar(name: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, gone when it is done.

    Args:
        name: what is worked on.
        total: seconds of audio; None if that is not known.

    Yields:
        a function that takes the seconds that are done.
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    with bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.fields[whole]}"),
        TimeRemainingColumn(),
    ) as progress:
        whole = "?" if total is None else f"{total:.0f} s"
        task = progress.add_task(name, total=total, whole=whole)
        yield lambda done: progress.update(task, completed=done)
