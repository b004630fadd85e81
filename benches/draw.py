"""Draws benchmarks: every way of doing a thing, and the least time that it can take.

    pytest benches/bench_log_mel.py --benchmark-enable --benchmark-json=times.json
    python benches/draw.py times.json [more.json ...] ops.png

One row of dots for each group; see conftest.py for what a benchmark has to set.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLOURS = {"native": "#0072b2", "composed": "#e69f00", "peers": "#999999", "numpy": "#cccccc"}
OTHER = "#cc79a7"


@dataclass
class Group:
    """One piece of work: seconds (medians) by way, and the floor if it is known."""

    ways: dict[str, float] = field(default_factory=dict)
    floor: float | None = None


def read(paths: list[Path]) -> tuple[dict[str, Group], set[str]]:
    """The groups that have a native way, and the machines they were measured on."""
    groups: dict[str, Group] = defaultdict(Group)
    machines = set()
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        cpu: dict[str, Any] = document["machine_info"].get("cpu", {})
        machines.add(
            f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} threads"
        )
        for bench in document["benchmarks"]:
            if way := bench["extra_info"].get("way"):
                group = groups[bench["group"]]
                group.ways[way] = bench["stats"]["median"]
                group.floor = bench["extra_info"].get("floor", group.floor)
    return {name: group for name, group in groups.items() if "native" in group.ways}, machines


def spell(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def draw(groups: dict[str, Group], machines: set[str], target: Path) -> None:
    """A row for each group: dots for its ways on one logarithmic axis, figures beside it."""
    figure, axes = plt.subplots(figsize=(12, 1.8 + 0.27 * len(groups)), layout="constrained")
    known: dict[str, Any] = {}
    for y, group in enumerate(groups.values()):
        native = group.ways["native"]
        marks = {way: (seconds, "o") for way, seconds in group.ways.items()}
        if group.floor:
            marks["the floor: the least that it can take"] = (group.floor, "|")
        for way, (seconds, marker) in marks.items():
            colour = "black" if marker == "|" else COLOURS.get(way, OTHER)
            # From behind: the others, native, the floor.
            order = 4 if marker == "|" else 3 if way == "native" else 2
            mark = axes.scatter(seconds, y, s=80, color=colour, marker=marker, zorder=order)
            known.setdefault(way, mark)
        others = [
            f"{way} {seconds / native:.3g} ×"
            for way, seconds in sorted(group.ways.items(), key=lambda item: item[1])
            if way != "native"
        ]
        axes.text(
            1.01,
            y,
            ", ".join([spell(native), *others]),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )
    names = [name.replace("mlx.core.", "") for name in groups]
    axes.set_yticks(range(len(groups)), names, fontsize=8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: spell(x))
    axes.set_xlabel("time, median (logarithmic; further left is better)")
    axes.set_title(f"Ops on {'; '.join(sorted(machines))}", fontsize=10)
    axes.set_title("native; the others, times as long", fontsize=8, loc="right")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(
        known.values(),
        known.keys(),
        loc="outside lower center",
        ncols=5,
        fontsize=8,
        markerscale=0.8,
    )
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("target", type=Path, metavar="PNG")
    args = parser.parse_args()
    groups, machines = read(args.results)
    if not groups:
        parser.error("no benchmark in these files says which way is native")
    draw(groups, machines, args.target)


if __name__ == "__main__":
    main()
