"""``voxfast convert``: quantised checkpoints."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from voxfast.cli import options
from voxfast.cli.console import UsageError, note, say
from voxfast.models.values import BITS, GROUP_SIZES


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "convert",
        help="quantise a checkpoint",
        description="Write a Voxtral checkpoint in voxmlx's layout, quantised by MLX.",
        epilog="example: voxfast convert voxtral-mini-4b voxtral-4bit --bits 4",
    )
    parser.add_argument("source", metavar="MODEL", help="folder, alias, or owner/name on the hub")
    parser.add_argument("target", metavar="FOLDER", type=Path, help="folder to make")
    parser.add_argument(
        "--bits", choices=("none", *map(str, BITS)), default="4", help="default: %(default)s"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        choices=GROUP_SIZES,
        default=64,
        help="weights that share a scale (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=options.DTYPES, default="auto", help="of what is not packed"
    )
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert; returns the exit code."""
    from voxfast.hub import resolve
    from voxfast.models.registry import family_of
    from voxfast.models.voxtral.convert import convert
    from voxfast.models.voxtral.family import VOXTRAL

    source = resolve(args.source)
    family = family_of(source)
    if family not in (None, VOXTRAL):
        quantised = ", ".join(alias for alias in family.aliases if alias.endswith("bit"))
        raise UsageError(
            f"{args.source} is a {family.name} checkpoint, and only Voxtral's are converted; "
            f"quantised ones are published: {quantised}"
        )
    if not args.quiet:
        note(f"voxfast: converting {source}")
    with _progress(args.quiet) as progress:
        convert(
            source,
            args.target,
            bits=None if args.bits == "none" else int(args.bits),
            group_size=args.group_size,
            dtype=options.chosen_dtype(args.dtype),
            progress=progress,
        )
    size = sum(path.stat().st_size for path in args.target.iterdir())
    say(f"{args.target}: {size / 1e6:.1f} MB\n")
    return 0


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, on a terminal, that takes (bytes written, bytes in all)."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting")
        yield lambda done, total: bar.update(task, completed=done, total=total)
