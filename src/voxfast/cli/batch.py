"""``voxfast batch``: archives to folders of transcripts."""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from voxfast.cli import options
from voxfast.cli.console import UsageError, bar, describe, note
from voxfast.errors import VoxfastError
from voxfast.formats import FORMATS
from voxfast.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from voxfast.batch import Cluster, Progress

Tell = Callable[["Progress"], None]

_EPILOG = """\
A manifest (.jsonl, .csv, .tsv, .parquet) has a recording in each row: path (a file, relative to
the manifest, or an address), and optionally id, language, prompt, vocabulary, delay_ms,
endpoint_ms, skip_silence, channel. Without one, the id of a file is its path as it is given here.

The same command again goes on where the last one ended.

exit codes: 0 all recordings have their results; 1 some failed, in this run or before, or it ended
early; 2 nothing was done, and the message says why; 130 interrupted, and what is finished is kept

examples:
  voxfast batch calls/ --output transcripts --format json --format srt
  voxfast batch 'radio/**/*.mp3' --output transcripts --workers 4
  voxfast batch archive.parquet --output transcripts --shard 2/8
  voxfast batch s3://bucket/talks/ --output transcripts --ray auto --actors 2,64 --actor-cpus 4
"""
_SECONDS_BETWEEN_NOTES = 60.0
_SHOWN_FAILURES = 10


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "batch",
        help="transcribe an archive, on all processors or a cluster",
        description="Transcribe recordings into a folder. One that fails is a line in its index.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="file, folder, pattern, manifest or address"
    )
    parser.add_argument(
        "--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the results"
    )
    parser.add_argument(
        "--format",
        "-f",
        action="append",
        choices=FORMATS,
        help="of the transcripts (default: json); may be repeated",
    )
    options.add_model(parser)
    parser.add_argument_group("audio").add_argument(
        "--channel",
        type=options.channel,
        default="mix",
        metavar="N|mix",
        help="which channel to transcribe, counted from 1; mix: see voxfast transcribe (default)",
    )
    many = options.in_range(1, 10**9)
    group = parser.add_argument_group("what is done")
    group.add_argument("--retry", action="store_true", help="take recordings again that failed")
    group.add_argument("--limit", type=many, metavar="N", help="only so many, of those left")
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only part I of N: for several machines that share the output folder, or not",
    )
    group.add_argument(
        "--attempts",
        type=many,
        default=3,
        metavar="N",
        help="how often a recording is taken whose worker is killed (default: %(default)s)",
    )
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--workers",
        type=options.in_range(1, 1024),
        metavar="N",
        help="processes, which share the processors (default: one for each processor, as far as "
        "memory allows; one with a GPU)",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help='actors of Ray (pip install "voxfast[ray]") at auto, HOST:PORT or ray://HOST:PORT; '
        "without an address: RAY_ADDRESS, or this machine alone",
    )
    group.add_argument("--actors", type=_range, metavar="MIN,MAX", help="with --ray; default: 1,16")
    group.add_argument("--actor-cpus", type=_amount, metavar="N", help="with --ray; default: 1")
    group.add_argument("--actor-gpus", type=_amount, metavar="N", help="with --ray; default: 0")
    group.add_argument(
        "--actor-memory", type=_amount, metavar="GB", help="with --ray; default: not reserved"
    )
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe an archive; returns the exit code."""
    from voxfast.batch import transcribe_files

    cluster = _checked(args)
    with _shown(quiet=args.quiet) as (tell, say):
        report = _Report(args, tell, say)
        try:
            state = transcribe_files(
                args.inputs,
                args.output,
                model=args.model,
                formats=args.format or ["json"],
                dtype=None if args.dtype == "auto" else args.dtype,
                workers=args.workers,
                cluster=cluster,
                retry=args.retry,
                limit=args.limit,
                shard=args.shard,
                attempts=args.attempts,
                progress=report,
                channel=None if args.channel == "mix" else args.channel,
                delay_ms=args.delay_ms,
                language=args.language,
                prompt=args.prompt,
                vocabulary=args.vocabulary or None,
                endpoint_ms=args.endpoint_ms,
                skip_silence=args.skip_silence or None,
            )
        except KeyboardInterrupt:
            say(
                f"voxfast: interrupted; {_recordings(report.done)} finished and kept, and the same "
                f"command goes on with the rest"
            )
            raise
        except (VoxfastError, ImportError, OSError) as error:
            if report.done:
                raise
            raise UsageError(_refusal(error, args.output)) from error  # nothing was done
    if not args.quiet:
        note(f"voxfast: {_summary(state, args.output)}")
    return 1 if state.has_failures else 0


def _checked(args: argparse.Namespace) -> "Cluster | None":
    """The cluster that was asked for, if the arguments fit together."""
    if args.channel == "each":
        raise UsageError("--channel each: a recording has one transcript here; name one, or mix")
    if args.ray and (not args.inputs or Path(args.ray).exists()):
        raise UsageError(
            f"--ray takes an address, and {args.ray} was taken for it: put --ray behind the "
            f"inputs, or say --ray=ADDRESS"
        )
    if not args.inputs:
        raise UsageError("name what to transcribe: a file, folder, pattern, manifest or address")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output {args.output} is a file; name a folder")
    return _cluster(args)


def _cluster(args: argparse.Namespace) -> "Cluster | None":
    """The cluster that was asked for."""
    from voxfast.batch import Cluster

    memory = None if args.actor_memory is None else round(args.actor_memory * 1e9)
    asked = {
        "actors": args.actors, "cpus": args.actor_cpus, "gpus": args.actor_gpus, "memory": memory,
    }  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    if args.ray is None:
        if asked:
            raise UsageError("--actors and --actor-… are for a cluster: say --ray, or --workers")
        return None
    if args.workers is not None:
        raise UsageError("--workers is for this machine without Ray; with --ray say --actors")
    return Cluster(args.ray or None, **asked)


def _refusal(error: Exception, output: Path) -> str:
    """Why nothing was done, in words."""
    name = getattr(error, "filename", None)
    is_output = isinstance(name, str) and Path(name).is_relative_to(output)
    return f"--output {describe(error)}" if is_output else describe(error)


class _Report:
    """Tells how far a run has come, and of failures as they happen.

    Args:
        tell: shows progress.
        say: writes a line, beside what shows progress.
    """

    def __init__(self, args: argparse.Namespace, tell: Tell, say: Callable[[str], None]) -> None:
        self._args, self._tell, self._say = args, tell, say
        self.done = 0

    def __call__(self, progress: "Progress") -> None:
        self.done = progress.done
        if progress.failure is not None:
            self._fail(progress.failed, *progress.failure)
        elif not progress.done and self._args.model == DEFAULT_MODEL and not self._args.quiet:
            self._say(
                f"voxfast: {DEFAULT_MODEL} is a demonstration that knows 71 words; --model NAME "
                f"takes another model (voxfast models lists them)"
            )
        self._tell(progress)

    def _fail(self, number: int, id_: str, reason: str) -> None:
        if number <= _SHOWN_FAILURES:
            self._say(f"voxfast: error: {_plain(id_)}: {_plain(reason)}")
        elif number == _SHOWN_FAILURES + 1:
            self._say(f"voxfast: more failures are not shown; see {_index(self._args.output)}")


def _plain(text: str) -> str:
    """A text in one line, without what a terminal might obey: names of files hold anything."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _index(output: Path) -> str:
    """The index of a folder, or the pattern of several."""
    found = list(output.glob("index*.jsonl"))
    return str(found[0] if len(found) == 1 else output / "index*.jsonl")


def _summary(state: "Progress", output: Path) -> str:
    """What became of an archive, in a line."""
    parts = [f"{state.done} of {_recordings(state.recordings)}"]
    if state.audio_seconds:
        parts.append(
            f"{state.audio_seconds / 3600:.2f} h of audio in {_clock(state.elapsed_seconds)}, "
            f"{state.speed:.1f} times real time"
        )
    if state.earlier:
        parts.append(f"{state.earlier} complete before")
    if state.failed:
        parts.append(f"{state.failed} failed: see {_index(output)}")
    if state.earlier_failed:
        parts.append(
            f"{state.earlier_failed} failed before: see {_index(output)}; --retry takes them again"
        )
    left = state.recordings - state.earlier - state.earlier_failed - state.done
    if left:
        parts.append(f"{left} left")
    return "; ".join(parts)


def _recordings(number: int) -> str:
    return "1 recording" if number == 1 else f"{number} recordings"


@contextlib.contextmanager
def _shown(*, quiet: bool) -> Iterator[tuple[Tell, Callable[[str], None]]]:
    """How far it has come: a bar on a terminal, else a line every minute.

    Yields:
        a function that takes the progress, and one that writes a line beside it.
    """
    from rich.console import Console

    if quiet:
        yield lambda progress: None, note
    elif not Console(stderr=True).is_terminal:
        yield _lines(), note
    else:
        from rich.progress import BarColumn, TextColumn

        with bar(
            TextColumn("{task.completed:.0f} of {task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
        ) as shown:
            task = shown.add_task("", total=0, rate="looking")

            def tell(progress: "Progress") -> None:
                done, chosen = progress.done, progress.chosen
                shown.update(task, completed=done, total=chosen, rate=_rate(progress))

            yield (
                tell,
                partial(shown.console.print, markup=False, highlight=False, soft_wrap=True),
            )


def _lines() -> Tell:
    """Lines on stderr."""
    last = time.monotonic()

    def tell(progress: "Progress") -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_NOTES:
            last = time.monotonic()
            note(f"voxfast: {progress.done} of {progress.chosen}, {_rate(progress)}")

    return tell


def _rate(progress: "Progress") -> str:
    """Speed, failures and time left, in words."""
    left = progress.seconds_left
    if left is None:
        return "loading the model"
    failed = f"{progress.failed} failed, " if progress.failed else ""
    return f"{failed}{progress.speed:.1f} times real time, {_clock(left)} left"


def _clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def _shard(text: str) -> tuple[int, int]:
    """A type of argument: ``2/8``."""
    part, _, number = text.partition("/")
    if not (part.isdecimal() and number.isdecimal() and 1 <= int(part) <= int(number)):
        raise argparse.ArgumentTypeError(f"{text} is not a part and their number, such as 2/8")
    return int(part), int(number)


def _range(text: str) -> tuple[int, int]:
    """A type of argument: ``1,16``."""
    least, _, most = text.partition(",")
    if not (least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most)):
        raise argparse.ArgumentTypeError(f"{text} is not the least and the most, such as 1,16")
    return int(least), int(most)


def _amount(text: str) -> float:
    """A type of argument: a number from 0 to a million."""
    value = float(text)
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 1000000")
    return value
