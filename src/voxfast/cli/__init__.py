"""The command ``voxfast``.

Each command is a module with ``add_parser(subparsers)``, which sets ``run(args) -> int`` as
the parser's default; :data:`COMMANDS` lists them.

Exit codes: 0 all is well, 1 something failed (the rest was done), 2 wrong usage, 130
interrupted (141 and 143: the reader of the output went away; terminated).
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from voxfast._version import version
from voxfast.cli import align_heads, bench, convert, doctor, listen, transcribe
from voxfast.cli.console import UsageError, complain, describe
from voxfast.errors import InvalidOptionError

__all__ = ["COMMANDS", "main"]

COMMANDS = (transcribe, listen, bench, align_heads, convert, doctor)


class Terminated(KeyboardInterrupt):
    """SIGTERM: like an interrupt, but with its own exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        format="voxfast: %(levelname)s: %(message)s",
        level=logging.DEBUG if args.debug else logging.WARNING,
    )
    try:
        with _terminable():
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # The reader has what it wanted (`| head`). What is still buffered has nowhere to
        # go: without this, Python complains when it flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as interrupt:
        return 143 if isinstance(interrupt, Terminated) else 130
    except Exception as error:
        if args.debug:
            raise
        complain(describe(error))
        return 2 if isinstance(error, UsageError | InvalidOptionError) else 1


def _parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="voxfast", description="Streaming speech recognition on MLX."
    )
    parser.add_argument("--version", action="version", version=f"voxfast {version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what was transcribed is kept."""

    def terminate(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
