"""``voxfast serve``: a server for the protocols that apps speak."""

import argparse
import contextlib
import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from voxfast.cli import options
from voxfast.cli.console import note
from voxfast.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from voxfast.serve.hub import Hub, Limits
    from voxfast.serve.server import Listener

DEFAULT_PORT = 8910
_EPILOG = """\
examples:
  voxfast serve
  voxfast serve --model voxtral-mini-4b-4bit --port 9000
  voxfast serve --wyoming 10300
  openssl rand -hex 24 > keys && voxfast serve --host 0.0.0.0 --api-key-file keys

Ctrl-C and SIGTERM refuse new sessions, let the open ones write their last words, and end; a
second one ends at once.
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "serve",
        help="a server for apps: OpenAI's, vLLM's, Mistral's, Deepgram's protocols; a page",
        description="Transcribe for other programs, over HTTP and WebSockets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=options.in_range(0, 65_535),
        default=DEFAULT_PORT,
        help="0: a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--wyoming",
        metavar="PORT|HOST:PORT",
        help="the Wyoming protocol of home automation, too, which has no keys: on this machine "
        "alone unless a host is named",
    )
    _add_model(parser)
    _add_security(parser)
    _add_limits(parser)
    options.add_common(parser)
    parser.set_defaults(run=run)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="as for transcribe (default: %(default)s, a small demonstration)",
    )
    group.add_argument("--dtype", choices=options.DTYPES, default="auto", help="default: its own")
    options.add_kv_bits(group)
    group.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name that clients may have for the model; may be repeated",
    )


def _add_security(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("security")
    group.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="the keys that open it, one a line"
    )
    group.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="let other machines in without a key",
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name in the URLs of clients, beside localhost; may be repeated",
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages that may ask, as https://example.org; may be repeated",
    )
    group.add_argument("--certificate", type=Path, metavar="FILE", help="for HTTPS, in PEM")
    group.add_argument("--private-key", type=Path, metavar="FILE", help="of the certificate")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")

    def add(name: str, least: int, most: int, default: int, text: str) -> None:
        group.add_argument(
            name,
            type=options.in_range(least, most),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )

    add("--max-sessions", 1, 10_000, 32, "sessions at a time, files included")
    add("--max-upload-mb", 1, 100_000, 100, "megabytes of an upload")
    add("--max-message-kb", 1, 1 << 20, 16_384, "kilobytes of a WebSocket message")
    add("--max-audio-seconds", 1, 1_000_000, 14_400, "of audio in a session or file")
    add("--idle-seconds", 1, 86_400, 300, "without a message, after which a session ends")
    add("--requests-per-minute", 0, 1_000_000, 600, "of one key or address; 0: any number")
    add("--drain-seconds", 0, 3600, 30, "for last words, when the server ends")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit code: 1 if sessions had to be cut off."""
    check_extra()
    from voxfast.serve import log
    from voxfast.serve.hub import Hub
    from voxfast.serve.server import Server, Settings
    from voxfast.serve.tcp import parse_address

    wyoming = None if args.wyoming is None else parse_address(args.wyoming)
    settings = Settings(
        host=args.host,
        port=args.port,
        api_key_file=args.api_key_file,
        allow_anonymous=args.allow_anonymous,
        allow_hosts=args.allow_host,
        allow_origins=args.allow_origin,
        certificate=args.certificate,
        private_key=args.private_key,
    )
    settings.check()
    log.configure()
    with contextlib.closing(options.load_model(args)) as model:
        hub = Hub(model, _limits(args), aliases=tuple(args.alias))
        server = Server(hub, settings, _listeners(wyoming, hub))
        if not args.quiet:
            note(f"voxfast: {model.name} on {server.url}; Ctrl-C ends")
        return 0 if server.run() else 1


def _listeners(wyoming: tuple[str, int] | None, hub: "Hub") -> "list[Listener]":
    """Protocols that have sockets of their own; (host, port) of each."""
    from voxfast.serve.tcp import serve_wyoming

    return [] if wyoming is None else [partial(serve_wyoming, hub, *wyoming)]


def check_extra() -> None:
    """Raise ImportError, with the remedy, unless the extra is installed."""
    try:
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the server needs an extra ({error}): python -m pip install 'voxfast[server]'"
        ) from None


def _limits(args: argparse.Namespace) -> "Limits":
    from voxfast.serve.hub import Limits

    return dataclasses.replace(
        Limits(),
        sessions=args.max_sessions,
        upload_bytes=args.max_upload_mb << 20,
        message_bytes=args.max_message_kb << 10,
        audio_seconds=float(args.max_audio_seconds),
        idle_seconds=float(args.idle_seconds),
        requests_per_minute=args.requests_per_minute,
        drain_seconds=float(args.drain_seconds),
    )
