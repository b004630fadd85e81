"""Options that several commands share, and the model that they describe."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import voxfast
from voxfast._channels import Channel, check_channel
from voxfast._pauses import ENDPOINT_MS
from voxfast._pcm import SAMPLE_FORMATS
from voxfast.cli.console import note
from voxfast.cli.vocabulary import vocabulary
from voxfast.errors import InvalidAudioError
from voxfast.formats import FORMATS
from voxfast.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    import mlx.core as mx

    from voxfast.model import Model
    from voxfast.online.session import Session

DELAY_HELP = (
    "how long the model listens before it decides; more is surer. Voxtral: 80 to 1200 in steps "
    "of 80, or 2400 (voxtral-numbers: 240, 320, 480, 640, 800, 960), default 480; Qwen3-ASR: 0 "
    "to 10000, default 320"
)
DTYPES = ("auto", "float32", "bfloat16", "float16")


Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of every command."""
    parser.add_argument(
        "--quiet", "-q", action="store_true", help="only warnings and errors on stderr"
    )
    parser.add_argument("--debug", action="store_true", help="log, and show tracebacks")


def add_model(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Which model, and how it is to listen; returns the group."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="an embedded model, a folder, an alias such as voxtral-mini-4b, or owner/name on "
        "the Hugging Face hub (default: %(default)s, a small demonstration)",
    )
    group.add_argument("--dtype", choices=DTYPES, default="auto", help="default: the model's own")
    group.add_argument(
        "--delay-ms",
        type=int,
        metavar="MS",
        help=DELAY_HELP,
    )
    group.add_argument("--language", metavar="CODE", help="if the model can be told")
    group.add_argument("--prompt", metavar="TEXT", help="context, if the model takes one")
    group.add_argument(
        "--vocabulary",
        type=vocabulary,
        default=(),
        metavar="FILE|WORDS",
        help="names and terms that may be said: a file with one per line, and a weight behind a "
        "tab if need be; or phrases with commas between them",
    )
    group.add_argument(
        "--endpoint-ms",
        type=in_range(*ENDPOINT_MS),
        metavar="MS",
        help="a pause in the speech that ends a turn: its last words come at once",
    )
    group.add_argument(
        "--skip-silence",
        action="store_true",
        help="do not give silence and noise to the model, nor speech that the detector takes for "
        "them; times stay those of the audio",
    )
    return group


def add_kv_bits(group: "argparse._ArgumentGroup") -> None:
    """In how many bits sessions hold keys and values."""
    group.add_argument(
        "--kv-bits",
        type=int,
        choices=(8,),
        help="hold what sessions attend to in 8 bits: half the memory of a session, or less, and "
        "now and then another word (default: the dtype)",
    )


def add_output(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """In what form and where to."""
    where = "file or folder" if several else "file"
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        "-f",
        choices=FORMATS,
        help="default: what the suffix of --output says, or text",
    )
    group.add_argument(
        "--output",
        "-o",
        metavar="PATH",
        help=f"{where}, written while the words come; a file with a content is replaced when the "
        "transcript is complete; -: stdout (default)",
    )
    group.add_argument(
        "--no-overwrite", action="store_true", help="refuse an output that is there already"
    )
    group.add_argument(
        "--chunk-ms",
        type=in_range(1, 60_000),
        default=80,
        metavar="MS",
        help="how much audio is heard at a time (default: %(default)s)",
    )


def add_audio(parser: argparse.ArgumentParser) -> None:
    """Which channel is heard, and what raw PCM is."""
    group = parser.add_argument_group("audio")
    group.add_argument(
        "--channel",
        type=channel,
        default="mix",
        metavar="N|mix|each",
        help="which channel to transcribe, counted from 1; mix: their average, or the loudest "
        "where that would lose it (default); each: a transcript for each channel",
    )
    raw = parser.add_argument_group(
        "raw PCM on a pipe (with any of these, no header is looked for)"
    )
    raw.add_argument(
        "--raw-rate", type=in_range(1000, 768_000), metavar="HZ", help="default: 16000"
    )
    raw.add_argument("--raw-format", choices=SAMPLE_FORMATS, help="default: s16le")
    raw.add_argument("--raw-channels", type=in_range(1, 256), metavar="N", help="default: 1")


def channel(text: str) -> Channel:
    """A type of argument: a channel's number, ``mix`` or ``each``."""
    try:
        return check_channel(int(text) if text.isdecimal() else text)
    except InvalidAudioError as error:
        raise argparse.ArgumentTypeError(f"{text} is not mix, each or a number from 1") from error


def in_range(least: int, most: int) -> Callable[[str], int]:
    """A type of argument: an integer from ``least`` to ``most``."""

    def integer(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not {least} to {most}")
        return value

    return integer


def chosen_dtype(name: str) -> "mx.Dtype | None":
    """The type that ``--dtype`` names; None: the model's own."""
    import mlx.core as mx

    return None if name == "auto" else getattr(mx, name)


def load_model(args: argparse.Namespace) -> "Model":
    """The model that the options name; says so if it is only a demonstration."""
    model = voxfast.load(args.model, dtype=chosen_dtype(args.dtype), kv_bits=args.kv_bits)
    if model.is_demo and not args.quiet:
        note(f"voxfast: {model.name}: {model.description}")
    return model


def open_session(
    model: "Model", args: argparse.Namespace, recording: float | None = None
) -> "Session":
    """A session as the options describe it, for live audio or a recording of so many seconds."""
    options = {
        "delay_ms": args.delay_ms,
        "language": args.language,
        "prompt": args.prompt,
        "vocabulary": args.vocabulary,
        "skip_silence": args.skip_silence,
    }
    if args.endpoint_ms is not None:
        options["endpoint_ms"] = args.endpoint_ms
    if recording is None:
        return model.session(**options)
    return model.recording_session(recording, **options)
