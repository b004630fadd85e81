"""Figures of runs: error rate against speed, latency, and how a stream wears."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxfast.bench.extras import need
from voxfast.bench.journal import Run
from voxfast.bench.measure import Step
from voxfast.bench.peers import PUBLISHED, Published
from voxfast.bench.scoring import normalise
from voxfast.bench.summary import count, label, latencies, summarise

__all__ = ["draw"]

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#882255",
    "#999933", "#332288", "#bbbbbb",
)  # fmt: skip
MARKERS = "osD^vP*"
THEIRS = "#777777"
_LINE = 155
"""Characters of a note that fit into the width of a figure."""
_UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))


def draw(runs: Sequence[Run], folder: Path, *, peers: bool = False) -> list[Path]:
    """Draw what there is to draw; returns the PNG files.

    Args:
        runs: of one or several results.
        folder: where the files go; made if it is missing.
        peers: whether published figures of others are drawn beside.

    Raises:
        ImportError: without matplotlib.
    """
    need("matplotlib").use("agg")
    plt = need("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    labels = [label(run, runs) for run in runs]
    written = []
    for name, figure in (
        ("error_rate.png", _error_rate(plt, runs, labels, PUBLISHED if peers else ())),
        ("latency.png", _latency(plt, runs, labels)),
        ("stream.png", _stream(plt, runs, labels)),
    ):
        if figure is not None:
            figure.savefig(folder / name, dpi=130)
            plt.close(figure)
            written.append(folder / name)
    return written


def _error_rate(
    plt: Any, runs: Sequence[Run], labels: Sequence[str], peers: Sequence[Published]
) -> Any:
    """A point for each run: real-time factor and word error rate."""
    points = [
        (name, figures["real_time_factor"], figures["word_error_rate"])
        for name, figures in zip(labels, map(summarise, runs), strict=True)
        if figures["word_error_rate"] is not None
    ]
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(9, 3.7 if peers else 2.9), layout="constrained")
    for i, (name, factor, rate) in enumerate(points):
        axes.plot(
            factor,
            100 * rate,
            # Another pair of shape and colour for every run; open, so that none hides another.
            MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            fillstyle="none",
            markeredgewidth=2,
            markersize=9,
            label=f"{name}: {100 * rate:.2f} %, real-time factor {factor:.2g}",
        )
    for number, peer in enumerate(_with_rate(peers), start=1):
        place = (peer.real_time_factor, 100 * _rate(peer))
        axes.plot(
            *place,
            "o",
            color=THEIRS,
            fillstyle="none",
            markersize=14,
            label=f"{number}  {peer.system}, {peer.hardware}: {place[1]:.2f} %, {place[0]:.2g}",
        )
        axes.annotate(str(number), place, ha="center", va="center", color=THEIRS, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([m * 10.0**e for e in range(-4, 2) for m in (1, 2, 5)])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    factors = [factor for _, factor, _ in points] + [p.real_time_factor for p in _with_rate(peers)]
    axes.set_xlim(min(factors) / 2, max(1.5, 2 * max(factors)))
    highest = max([100 * rate for *_, rate in points] + [100 * _rate(p) for p in _with_rate(peers)])
    axes.set_ylim(-0.04 * max(highest, 1), 1.15 * max(highest, 1))
    axes.annotate(
        "real time",
        (1.0, 0.97),
        xycoords=axes.get_xaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        rotation=90,
        va="top",
    )
    axes.set_xlabel("real-time factor (compute ÷ audio, less is faster; logarithmic)")
    axes.set_ylabel("word error rate (%)")
    axes.set_title("Error rate against speed: lower left is better")
    axes.grid(alpha=0.3)
    note = _measured(runs)
    if peers:
        note += (
            "\ngrey, numbered: published by others, on their own hardware and recordings "
            f"(not comparable)\nsources: {'; '.join(sorted({p.source for p in _with_rate(peers)}))}"
        )
    _legend(figure, axes, note)
    return figure


def _latency(plt: Any, runs: Sequence[Run], labels: Sequence[str]) -> Any:
    """The share of words that have appeared so long after their end."""
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    drawn, least, most = False, 0.0, 0.0
    for i, (run, name) in enumerate(zip(runs, labels, strict=True)):
        medians: list[str] = []
        n = 0
        for aware, style in ((False, "--"), (True, "-")):
            values = np.sort(latencies(run.records, aware=aware))
            if not len(values):
                continue
            n = len(values)
            drawn, least = True, min(least, float(values[0]))
            most = max(most, float(np.percentile(values, 99)))
            medians.append(f"{np.median(values):.2f} s")
            axes.step(
                np.concatenate([values[:1], values, values[-1:] + 3600]),
                np.concatenate([[0], np.arange(1, n + 1), [n]]) * (100 / n),
                style,
                where="post",
                color=COLOURS[i % len(COLOURS)],
                label=f"{name}: median {medians[0]}, with computing {medians[1]} "
                f"({count(n, 'word')})"
                if aware
                else None,
            )
    if not drawn:
        plt.close(figure)
        return None
    axes.axhline(50, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(min(0.0, least), 1.15 * most)
    axes.set_ylim(0, 101)
    axes.set_xlabel("seconds from the end of a word to its appearance")
    axes.set_ylabel("words that have appeared (%)")
    axes.set_title("Latency: further left is better")
    axes.grid(alpha=0.3)
    note = (
        f"{_measured(runs)}\nsolid: with the time to compute; dashed: without; words that only the "
        "end of a stream brought out are left out"
    )
    _legend(figure, axes, note)
    return figure


def _stream(plt: Any, runs: Sequence[Run], labels: Sequence[str]) -> Any:
    """Time of a step and memory over the audio that was heard."""
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(9, 4.9), layout="constrained")
    longest = max((sum(record.seconds for record in run.records) for run in runs), default=0.0)
    unit, size = next(((name, n) for name, n in _UNITS if longest >= 2 * n), _UNITS[-1])
    highest = 0.0
    for i, (run, name) in enumerate(zip(runs, labels, strict=True)):
        ends: list[float] = []
        steps: list[Step] = []
        start = 0.0
        for record in run.records:
            ends += [start + step.second for step in record.steps]
            steps += record.steps
            start += record.seconds
        if not steps:
            continue
        times, memory = [step.mean_ms for step in steps], [step.resident_mb for step in steps]
        highest = max(highest, *memory)
        style = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1, "alpha": 0.8}
        top.plot(
            np.array(ends) / size,
            times,
            **style,
            label=f"{name}: {np.mean(times):.3g} ms per chunk of {run.options['chunk_ms']} ms, "
            f"{max(memory):.0f} MB at most",
        )
        bottom.plot(np.array(ends) / size, memory, **style)
    if not top.lines:
        plt.close(figure)
        return None
    top.set(ylabel="time per chunk (ms),\nmean of each second", ylim=(0, None))
    top.set_title("One stream after the other: time and memory over the audio heard")
    bottom.set(
        ylabel="resident memory of\nthe process (MB)",
        xlabel=f"{unit} of audio",
        ylim=(0, 1.2 * highest),
    )
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    _legend(figure, top, _measured(runs))
    return figure


def _legend(figure: Any, axes: Any, note: str) -> None:
    """Entries and a note below the axes, where they hide nothing; the figure grows by them."""
    handles, names = axes.get_legend_handles_labels()
    lines = [line for long in note.splitlines() for line in textwrap.wrap(long, _LINE)]
    height = figure.get_figheight() + 0.17 * len(names) + 0.14 * len(lines) + 0.15
    figure.set_figheight(height)
    figure.legend(
        handles,
        names,
        loc="outside lower left",
        markerscale=0.7,
        fontsize=8,
        title="\n".join(lines),
        title_fontsize=7.5,
        alignment="left",
        frameon=False,
    )


def _measured(runs: Sequence[Run]) -> str:
    """What was measured, how much of it, and where."""
    found = {}
    for run in runs:
        machine = run.setting["machine"]
        words = sum(len(normalise(record.reference).split()) for record in run.records)
        amount = f"{count(len(run.records), 'stream')}, {count(words, 'word')}"
        place = f"{machine['processor']}, {count(machine['threads'], 'thread')}"
        found[f"{run.setting['dataset']['name']} ({amount}) on {place}"] = True
    return f"measured by voxfast bench: {'; '.join(found)}"


def _with_rate(peers: Sequence[Published]) -> list[Published]:
    return [peer for peer in peers if peer.word_error_rate is not None]


def _rate(peer: Published) -> float:
    return 0.0 if peer.word_error_rate is None else peer.word_error_rate
