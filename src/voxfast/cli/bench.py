"""``voxfast bench``: error rates, speed and latency on a data set."""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import voxfast
from voxfast.cli import options
from voxfast.cli.console import UsageError, note, say
from voxfast.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from voxfast.bench.dataset import Clip
    from voxfast.bench.journal import Run
    from voxfast.bench.measure import Record

_LONG = 200
"""Characters from which on only the places of an utterance are shown that are wrong."""
_PLACES = 8
_MODES = ("utterance", "single", "chapter")

_EPILOG = """\
examples:
  voxfast bench LibriSpeech/test-clean --model voxtral-mini-4b-4bit --limit 100 -o clean.json
  voxfast bench clips.json --delay-ms 240 --delay-ms 480 --delay-ms 960 --figures figures/
  voxfast bench --compare a.json b.json --figures figures/ --peers
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "bench",
        help="measure error rates, speed and latency on a data set",
        description="Transcribe a data set: a folder in LibriSpeech's layout, or clips with a "
        "JSON manifest. Options that may be repeated are combined with one another.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", type=Path, metavar="DATASET")
    parser.add_argument(
        "--compare", nargs="+", type=Path, default=[], metavar="FILE", help="earlier results"
    )
    group = parser.add_argument_group("what is run")
    group.add_argument(
        "--model", action="append", metavar="NAME", help="may be repeated; see voxfast transcribe"
    )
    group.add_argument("--dtype", choices=options.DTYPES, default="auto", help="default: its own")
    options.add_kv_bits(group)
    group.add_argument(
        "--mode",
        action="append",
        choices=_MODES,
        help="utterance: every clip is streamed (default); single: every clip at once; chapter: "
        "the clips of a chapter streamed as one, with gaps of 0.5 s; may be repeated",
    )
    milliseconds = options.in_range(1, 60_000)
    group.add_argument(
        "--chunk-ms",
        action="append",
        type=milliseconds,
        metavar="MS",
        help="audio that is fed at a time (default: 80); may be repeated",
    )
    group.add_argument(
        "--delay-ms",
        action="append",
        type=int,
        metavar="MS",
        help=f"{options.DELAY_HELP}; may be repeated",
    )
    group.add_argument("--language", metavar="CODE", help="if the model can be told")
    group.add_argument("--prompt", metavar="TEXT", help="context, if the model takes one")
    group.add_argument(
        "--limit", type=options.in_range(1, 10**9), metavar="N", help="only the first clips"
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        help="JSON with all results; an interrupted benchmark goes on where it was, and a file "
        "that is there is never replaced",
    )
    group.add_argument("--figures", type=Path, metavar="FOLDER", help="draw PNG files there")
    group.add_argument("--peers", action="store_true", help="draw published figures of others, too")
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, compare, draw; returns the exit code."""
    from voxfast.bench.extras import need
    from voxfast.bench.journal import load_runs

    if args.dataset is None and not args.compare:
        raise UsageError("give a data set, or --compare with files of results")
    if args.dataset is None and args.output:
        raise UsageError("--output is for what is measured; --compare alone measures nothing")
    need("jiwer")
    if args.figures:  # before hours of work, not after them
        need("matplotlib")
        args.figures.mkdir(parents=True, exist_ok=True)
    runs = [run for path in args.compare for run in load_runs(path)]
    kept = args.output or args.dataset is None
    lost = "nothing was kept, for want of --output"
    if args.dataset is not None:
        with _told(args, "the same command goes on from here" if kept else lost):
            runs = _measure(args) + runs
    _report(runs)
    if args.figures:
        from voxfast.bench.figures import draw

        with _told(args, "the same command draws again" if kept else lost):
            for path in draw(runs, args.figures, peers=args.peers):
                say(f"{path}\n")
    return 0


@contextmanager
def _told(args: argparse.Namespace, outcome: str) -> Iterator[None]:
    """Say what an interrupt leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        if not args.quiet:
            note(f"voxfast: interrupted; {outcome}")
        raise


def _measure(args: argparse.Namespace) -> list["Run"]:
    """Run the data set with every combination of options."""
    from voxfast.audio import duration
    from voxfast.bench.dataset import load_dataset, streams
    from voxfast.bench.journal import Journal, Run, write_results
    from voxfast.bench.measure import measure
    from voxfast.bench.summary import summarise

    clips = load_dataset(args.dataset, args.limit)
    runs = [Run(plan, _identity(plan), _setting(args, clips)) for plan in _plans(args)]
    with Journal(args.output, [run.head for run in runs]) as journal, _Models(args) as load:
        waiting = []
        for run, done in zip(runs, journal.done, strict=True):
            run.records = done
            waiting.append(streams(clips, run.options["mode"])[len(done) :])
        # What is bound to fail, before hours of work: files that are no audio, and options that a
        # model refuses; backwards, so that the first model is there when its streams begin.
        ahead = (stream for rest in waiting for stream in rest)
        for clip in dict.fromkeys(clip for stream in ahead for clip in stream.clips):
            duration(clip.path)
        for run, rest in reversed(list(zip(runs, waiting, strict=True))):
            if rest:
                load(run.options["model"]).session(**run.options["session"]).close()
        for number, (run, rest) in enumerate(zip(runs, waiting, strict=True)):
            plan, total = run.options, len(run.records) + len(rest)
            if run.records and not args.quiet:
                note(f"voxfast: {len(run.records)} of {total} streams were done before")
            with _progress(run, total, args) as show:
                for stream in rest:
                    record = measure(
                        load(plan["model"]), stream, chunk_ms=plan["chunk_ms"], **plan["session"]
                    )
                    journal.add(number, record)
                    show(record)
        if args.output:
            if not journal.is_complete:
                write_results(args.output, runs, [summarise(run) for run in runs])
            journal.remove()
            if not args.quiet:
                note(f"voxfast: results are in {args.output}")
    return runs


class _Models:
    """Loads models by name, and keeps only the last: two large ones may not fit.

    Args:
        args: the dtype, kv_bits, and whether nothing is to be said about demonstrations.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._loaded: dict[str, voxfast.Model] = {}
        self._known: set[str] = set()

    def __call__(self, name: str) -> "voxfast.Model":
        if name not in self._loaded:
            self._close()
            changes = {"model": name, "quiet": self._args.quiet or name in self._known}
            model = options.load_model(argparse.Namespace(**vars(self._args) | changes))
            self._loaded[name] = model
            self._known.add(name)
        return self._loaded[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._loaded:
            self._loaded.popitem()[1].close()


def _plans(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The options of every run."""
    return [
        {
            "model": model,
            "dtype": args.dtype,
            "kv_bits": args.kv_bits,
            "mode": mode,
            "chunk_ms": None if mode == "single" else chunk_ms,
            "delay_ms": delay_ms,
            "language": args.language,
            "limit": args.limit,
            "session": {
                key: value
                for key, value in (
                    ("delay_ms", delay_ms),
                    ("language", args.language),
                    ("prompt", args.prompt),
                )
                if value is not None
            },
        }
        for model, mode, chunk_ms, delay_ms in itertools.product(
            args.model or [DEFAULT_MODEL],
            args.mode or _MODES[:1],
            args.chunk_ms or [80],
            args.delay_ms or [None],
        )
        # Everything at once has no chunks to differ in.
        if mode != "single" or chunk_ms == (args.chunk_ms or [80])[0]
    ]


def _identity(plan: dict[str, Any]) -> dict[str, Any]:
    from voxfast.bench.journal import model_identity
    from voxfast.hub import resolve

    return model_identity(plan["model"], resolve(plan["model"]))


def _setting(args: argparse.Namespace, clips: Sequence["Clip"]) -> dict[str, Any]:
    """Data set, machine and versions."""
    from voxfast.bench.dataset import GAP_SECONDS, fingerprint
    from voxfast.bench.journal import machine, versions

    return {
        "dataset": {
            "name": args.dataset.stem,
            "path": str(args.dataset),
            "clips": len(clips),
            "fingerprint": fingerprint(clips),
            "gap_seconds": GAP_SECONDS,
        },
        "machine": machine(),
        "versions": versions(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith("VOXFAST_")},
    }


@contextmanager
def _progress(
    run: "Run", total: int, args: argparse.Namespace
) -> Iterator[Callable[["Record"], None]]:
    """A bar with running figures, where somebody sees it."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda record: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from voxfast.bench.scoring import word_errors
    from voxfast.bench.summary import label

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        name = f"{label(run)}, {run.options['mode']}"
        task = progress.add_task(name, total=total, figures="")

        seconds = compute = errors = words = 0.0

        def show(record: "Record") -> None:
            nonlocal seconds, compute, errors, words
            seconds, compute = seconds + record.seconds, compute + record.compute_seconds
            wrong, spoken = word_errors(record.reference, record.hypothesis)
            errors, words = errors + wrong, words + spoken
            rate = errors / words if words else None
            figures = f"WER {_percent(rate)}  RTF {compute / seconds:.3f}"
            progress.update(task, advance=1, figures=figures)

        for record in run.records:
            show(record)
        yield show


_COLUMNS = (
    "WER",
    "CER",
    "median",
    "p90",
    "p95",
    "no error",
    "RTF",
    "latency",
    "aware",
    "aware p95",
    "start",
    "end",
    "ms/chunk",
    "MB",
)


def _report(runs: Sequence["Run"]) -> None:
    """A table, what its columns mean, and the worst utterances."""
    from voxfast.bench.scoring import differences
    from voxfast.bench.summary import label, summarise

    summaries = [summarise(run) for run in runs]
    rows = [[label(run, runs), *_row(found)] for run, found in zip(runs, summaries, strict=True)]
    table = [["", *_COLUMNS], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        say("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip() + "\n")
    say(
        "\nWER, CER: word and character error rate over everything; then the WER per utterance:\n"
        "median, 90th and 95th percentile, share without an error. RTF: compute ÷ audio.\n"
        "latency: from a word's end to its appearance, median; aware: with the time to compute.\n"
        "start, end: mean error of word times in ms, where they are known. MB: resident memory.\n"
    )
    for run, found in zip(runs, summaries, strict=True):
        if found["worst"]:
            say(f"\nworst of {label(run, runs)}:\n")
        for entry in found["worst"]:
            say(f"  {_percent(entry['word_error_rate'])}  {entry['name']}\n")
            if len(entry["reference"]) <= _LONG:
                say(f"    said   {entry['reference']}\n    heard  {entry['hypothesis']}\n")
                continue
            places = differences(entry["reference"], entry["hypothesis"])
            for place in places[:_PLACES]:
                say(f"    … {place} …\n")
            if len(places) > _PLACES:
                say(f"    and in {len(places) - _PLACES} more places\n")


def _row(found: dict[str, Any]) -> list[str]:
    """The cells of one run."""
    each = found["per_utterance"] or {}
    latency = found["latency"] or {"unaware": {}, "aware": {}}
    times = found["word_times"] or {"start": {}, "end": {}}
    return [
        _percent(found["word_error_rate"]),
        _percent(found["character_error_rate"]),
        *(_percent(each.get(key)) for key in ("median", "percentile_90", "percentile_95")),
        _percent(each.get("without_error")),
        _number(found["real_time_factor"], "{:.3f}"),
        _number(latency["unaware"].get("median"), "{:.2f} s"),
        _number(latency["aware"].get("median"), "{:.2f} s"),
        _number(latency["aware"].get("percentile_95"), "{:.2f} s"),
        _number(times["start"].get("mean_absolute"), "{:.0f}", 1000),
        _number(times["end"].get("mean_absolute"), "{:.0f}", 1000),
        _number((found["step_ms"] or {}).get("mean"), "{:.2f}"),
        _number((found["memory_mb"] or {}).get("most"), "{:.0f}"),
    ]


def _percent(value: float | None) -> str:
    return _number(value, "{:.2f} %", 100)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(factor * value)
