"""The command ``voxfast-wlk``: WhisperLiveKit's server with voxfast as its backend."""

import argparse
import sys
from collections.abc import Sequence

from voxfast.cli.console import complain, describe, exit_code
from voxfast.cli.options import DELAY_HELP
from voxfast.errors import VoxfastError

__all__ = ["main"]

_EPILOG = """\
All other options are those of WhisperLiveKit's own server (whisperlivekit-server --help);
--model takes what voxfast takes: an embedded model, a folder, an alias, or owner/name.

examples:
  voxfast-wlk --model voxtral-numbers --pcm-input      then open http://localhost:8000
  voxfast-wlk --model voxtral-mini-4b-4bit --host 0.0.0.0 --port 9000
  voxfast-wlk --backend qwen3-mlx-simul --model qwen3-asr-0.6b-8bit --language en
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Start the server; returns the exit code when it ends."""
    parser = argparse.ArgumentParser(
        prog="voxfast-wlk",
        usage="%(prog)s [--model NAME] [--backend NAME] [--delay-ms MS] [SERVER OPTIONS]",
        description="Start WhisperLiveKit's server with voxfast as its backend.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # Literals: importing WhisperLiveKit takes seconds, and --help does not need it.
    backends = ("voxtral-mlx", "qwen3-mlx-simul")
    parser.add_argument("--backend", choices=backends, default=backends[0])
    parser.add_argument(
        "--delay-ms",
        type=int,
        metavar="MS",
        help=DELAY_HELP,
    )
    args, rest = parser.parse_known_args(argv)
    try:
        from voxfast.integrations.whisperlivekit import install

        install(delay_ms=args.delay_ms)
        # WhisperLiveKit's server parses the command line on import.
        sys.argv = ["voxfast-wlk", *rest]
        from whisperlivekit import TranscriptionEngine, basic_server

        basic_server.config.backend = args.backend
        # The engine is a singleton. If the server created it, a wrong model would end in a
        # traceback.
        TranscriptionEngine(config=basic_server.config)
        basic_server.main()
    except (ImportError, VoxfastError) as error:
        complain(describe(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
