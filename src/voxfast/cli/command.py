"""Commands, their parser, and what becomes of their errors.

Each command is a module with ``add_parser(subparsers)``, which sets ``run(args) -> int`` as
the parser's default; :data:`COMMANDS` lists them.

Exit codes:
    0: all is well.
    1: something failed, or is not there: an input, a model, a data set, an extra package. The
        rest was done.
    2: wrong usage: an option, or a value of one, that cannot be.
    129, 130, 143: SIGHUP, Ctrl-C, SIGTERM; what was transcribed until then is kept.
    141: the reader of stdout went away.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from voxfast._version import version
from voxfast.cli import (
    align_heads,
    batch,
    bench,
    convert,
    doctor,
    listen,
    models,
    serve,
    transcribe,
)
from voxfast.cli.console import StdoutError, complain, describe, exit_code
from voxfast.cli.signals import Interrupted, interruptible

__all__ = ["COMMANDS", "run"]

COMMANDS = (transcribe, batch, listen, serve, bench, align_heads, convert, models, doctor)


_EPILOG = """\
voxfast COMMAND --help shows the options of a command.

exit codes: 0 all is well; 1 something failed or is not there, and the rest was done; 2 wrong
usage; 130 interrupted (129 SIGHUP, 143 SIGTERM), and what was transcribed is kept; 141 the
reader of stdout went away
"""


class _Parser(argparse.ArgumentParser):
    """The parser of one command: unknown options are its own errors, with its own usage.

    Options may stand between the names of files.
    """

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_intermixed:  # called by what follows, for a part of the arguments
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            known, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    _open_closed()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return 2
    _log(quiet=args.quiet, debug=args.debug)
    try:
        with interruptible():
            code: int = args.run(args)
            return code
    except StdoutError as error:
        # What is still buffered has nowhere to go: without this, Python complains when it
        # flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):  # the reader has its fill (`| head`)
            return 141
        complain(describe(error))
        return exit_code(error)
    except KeyboardInterrupt as interrupt:
        return interrupt.exit_code if isinstance(interrupt, Interrupted) else 130
    except Exception as error:
        if args.debug:
            raise
        complain(describe(error))
        return exit_code(error)


def _parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="voxfast",
        description="Streaming speech recognition on MLX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"voxfast {version()}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def _open_closed() -> None:
    """Put something in the place of standard streams that were closed (``>&-``): Python has None.

    Nothing is read from it, and what is written to stderr is lost; writing results fails, as it
    does on a descriptor that is closed.
    """
    for name, mode, flags in (
        ("stdin", "r", os.O_RDONLY),
        ("stdout", "w", os.O_RDONLY),
        ("stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _log(*, quiet: bool, debug: bool) -> None:
    """Let the log go to stderr, each message once."""
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(format="voxfast: %(levelname)s: %(message)s", level=level)
    # The hub's client prints its log by itself, with a level of its own, and draws bars. It
    # reads these variables when it is imported; what the user has set holds.
    logging.getLogger("huggingface_hub").propagate = False
    if quiet:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
