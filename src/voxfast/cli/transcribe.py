"""``voxfast transcribe``: files and pipes to text."""

import argparse
import contextlib
import itertools
import math
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from voxfast import audio
from voxfast.cli import options
from voxfast.cli.console import StdoutError, UsageError, complain, describe, note, progress_bar
from voxfast.cli.output import Output, chosen_format, plan
from voxfast.cli.run import Blocks, Pace, run_session
from voxfast.errors import AudioFileError, InvalidOptionError

if TYPE_CHECKING:
    from voxfast.model import Model

_EPILOG = """\
examples:
  voxfast transcribe talk.flac
  voxfast transcribe *.mp3 --format srt --output subtitles/
  ffmpeg -i URL -f wav - | voxfast transcribe -
  arecord -t raw -f S16_LE -r 16000 | voxfast transcribe - --raw-rate 16000 --format jsonl
  voxfast transcribe - < video.mp4
  voxfast transcribe call.wav --channel each -o call.srt
  voxfast transcribe - --raw-rate 8000 --raw-format mulaw < call.raw
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "transcribe",
        help="transcribe files, or audio from a pipe",
        description="Print words as they are recognised.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="audio file, or - for stdin")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="feed at the speed of speech, and report how far the words lag behind it",
    )
    options.add_kv_bits(options.add_model(parser))
    options.add_output(parser, several=True)
    options.add_audio(parser)
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe every input; returns the exit code."""
    if args.inputs.count("-") > 1:
        raise UsageError("stdin (-) can be read only once")
    if "-" in args.inputs and sys.stdin.isatty():
        raise UsageError("- reads audio from a pipe, and stdin is a terminal; see voxfast listen")
    _check_raw(args)
    args.format = chosen_format(args.format, args.output, args.inputs)
    # With a file for each channel, Output refuses those that are there: none has the plain name.
    overwrite = not args.no_overwrite or args.channel == "each"
    paths = plan(args.inputs, args.output, args.format, overwrite=overwrite)
    # Before a large model is loaded for nothing.
    lengths = {name: _length(name) for name in args.inputs}
    failed = sum(isinstance(length, AudioFileError) for length in lengths.values())
    model: Model | None = None
    with contextlib.ExitStack() as stack:
        for name, path in zip(args.inputs, paths, strict=True):
            length = lengths[name]
            if isinstance(length, AudioFileError):
                complain(str(length))
                continue
            if model is None:
                model = options.load_model(args)
                stack.callback(model.close)
            if len(args.inputs) > 1 and not args.quiet:
                note(f"== {name} ==")
            try:
                _transcribe(model, name, path, length, args)
            except (InvalidOptionError, StdoutError):
                raise
            except Exception as error:
                if args.debug:
                    raise
                complain(describe(error))
                failed += 1
    return 1 if failed else 0


def _transcribe(
    model: "Model", name: str, path: Path | None, length: float | None, args: argparse.Namespace
) -> None:
    """Transcribe one input."""
    is_live = _is_pipe(name)
    pace = Pace(live=is_live) if args.realtime else None
    recording = None
    if not is_live and pace is None:
        recording = math.inf if length is None else length
    outputs: list[Output] = []

    def open_output(channel: int | None) -> None:
        outputs.append(
            Output(
                args.format,
                path,
                name,
                name_lines=len(args.inputs) > 1,
                channel=channel,
                overwrite=not args.no_overwrite,
            )
        )

    if args.channel != "each":
        open_output(None)  # An unwritable place is known before the work.
    try:
        with _blocks(name, args) as blocks, _progress(name, path, length, args) as progress:
            if args.channel == "each":
                # How many there are is known with the first block.
                first = next(blocks)  # there is one: no audio at all is an AudioFileError
                for channel in range(first.shape[1]):
                    open_output(channel + 1)
                blocks = itertools.chain([first], blocks)
            run_session(
                model,
                blocks,
                outputs,
                args,
                is_pipe=is_live,
                recording=recording,
                pace=pace,
                progress=progress,
            )
    except KeyboardInterrupt:
        if not args.quiet:
            note("voxfast: interrupted")
        raise
    finally:
        for output in outputs:
            output.discard()
        if pace:
            note(f"voxfast: {name}: {pace.report()}")


def _check_raw(args: argparse.Namespace) -> None:
    """Raise UsageError if options of raw PCM are given for a file, which is never taken for it."""
    given = [
        f"--raw-{name} {value}"
        for name in ("rate", "format", "channels")
        if (value := getattr(args, f"raw_{name}")) is not None
    ]
    file = next((name for name in args.inputs if not _is_pipe(name)), None)
    if given and file is not None:
        raise UsageError(
            f"{' '.join(given)} is for pipes, and {file} is no pipe: "
            f"voxfast transcribe - {' '.join(given)} < {shlex.quote(file)}"
        )


def _is_pipe(name: str) -> bool:
    """Whether an input can only be read as it comes: stdin, a named pipe, ``<(...)``."""
    try:
        return name == "-" or not stat.S_ISREG(Path(name).stat().st_mode)
    except (OSError, ValueError):
        return False


def _length(name: str) -> float | AudioFileError | None:
    """Seconds of audio in an input, if they are known, or why there is none."""
    try:
        is_pipe = _is_pipe(name) and not Path(name).is_dir()
        return None if is_pipe else audio.duration(name)
    except AudioFileError as error:
        return error


@contextlib.contextmanager
def _blocks(name: str, args: argparse.Namespace) -> Iterator[Blocks]:
    """The audio of an input, in blocks of the length that was asked for."""
    seconds = args.chunk_ms / 1000
    if not _is_pipe(name):
        yield audio.stream_file(name, block_seconds=seconds, channel=args.channel)
        return
    with contextlib.ExitStack() as stack:
        stream: BinaryIO = (
            sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        )
        yield audio.stream_pcm(
            stream,
            raw_rate=args.raw_rate,
            raw_format=args.raw_format,
            raw_channels=args.raw_channels,
            channel=args.channel,
            block_seconds=seconds,
            name="stdin" if name == "-" else name,
        )


@contextlib.contextmanager
def _progress(
    name: str, path: Path | None, length: float | None, args: argparse.Namespace
) -> Iterator[Callable[[float], None] | None]:
    """A progress bar where somebody sees it and it disturbs nothing."""
    words_on_terminal = path is None and sys.stdout.isatty()
    if args.quiet or not sys.stderr.isatty() or _is_pipe(name) or words_on_terminal:
        yield None
        return
    with progress_bar(name, length) as progress:
        yield progress
