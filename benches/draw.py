"""Draws benchmarks: the time of every backend, and the roofline.

    pytest benches/bench_log_mel.py --benchmark-enable --benchmark-json=times.json
    python benches/draw.py times.json [more.json ...] ops.png

One line of dots for each group; see conftest.py for what a benchmark has to set.
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
    """Median seconds by backend, and the roofline if it is known."""

    backends: dict[str, float] = field(default_factory=dict)
    roofline: float | None = None


def read(paths: list[Path]) -> tuple[dict[str, Group], set[str]]:
    """The groups that have a native backend, and the machines they were measured on."""
    groups: dict[str, Group] = defaultdict(Group)
    machines = set()
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        cpu: dict[str, Any] = document["machine_info"].get("cpu", {})
        machines.add(
            f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} threads"
        )
        for bench in document["benchmarks"]:
            if backend := bench["extra_info"].get("backend"):
                group = groups[bench["group"]]
                group.backends[backend] = bench["stats"]["median"]
                group.roofline = bench["extra_info"].get("roofline", group.roofline)
    return {name: group for name, group in groups.items() if "native" in group.backends}, machines


def spell(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def draw(groups: dict[str, Group], machines: set[str], target: Path) -> None:
    """A line of dots for each group, one per backend, on a logarithmic axis; figures beside it."""
    figure, axes = plt.subplots(figsize=(12, 1.8 + 0.27 * len(groups)), layout="constrained")
    known: dict[str, Any] = {}
    for y, group in enumerate(groups.values()):
        native = group.backends["native"]
        marks = {backend: (seconds, "o") for backend, seconds in group.backends.items()}
        if group.roofline:
            marks["roofline"] = (group.roofline, "|")
        for backend, (seconds, marker) in marks.items():
            colour = "black" if marker == "|" else COLOURS.get(backend, OTHER)
            # From behind: the others, native, the roofline.
            order = 4 if marker == "|" else 3 if backend == "native" else 2
            mark = axes.scatter(seconds, y, s=80, color=colour, marker=marker, zorder=order)
            known.setdefault(backend, mark)
        others = [
            f"{backend} {seconds / native:.3g} ×"
            for backend, seconds in sorted(group.backends.items(), key=lambda item: item[1])
            if backend != "native"
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
        parser.error("no benchmark in these files has a backend 'native'")
    draw(groups, machines, args.target)


if __name__ == "__main__":
    main()
