"""Draws benchmarks: every way of doing a thing, and the least time that it can take.

    pytest benches/bench_log_mel.py --benchmark-enable --benchmark-json=times.json
    python benches/draw.py times.json [more.json ...] ops.png

One row of bars for each group; see conftest.py for what a benchmark has to set.
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
    """One horizontal bar for each way, side by side; time on a logarithmic axis."""
    rows = sum(len(group.ways) for group in groups.values())
    height = 1.3 + 0.2 * rows + 0.22 * len(groups)
    figure, axes = plt.subplots(figsize=(10, height), layout="constrained")
    y, ticks = 0.0, []
    known: dict[str, Any] = {}
    for name, group in groups.items():
        top = y
        for way, seconds in sorted(group.ways.items(), key=lambda item: item[1]):
            bar = axes.barh(y, seconds, height=0.85, color=COLOURS.get(way, OTHER))
            known.setdefault(way, bar)
            ratio = seconds / group.ways["native"]
            text = spell(seconds) + ("" if way == "native" else f"  ({ratio:.3g} × native)")
            axes.text(seconds * 1.06, y, text, va="center", fontsize=8)
            y += 1
        if group.floor:
            (line,) = axes.plot([group.floor] * 2, [top - 0.5, y - 0.5], color="black", linewidth=2)
            known["the floor: the least that it can take"] = line
        ticks.append(((top + y - 1) / 2, name))
        y += 1.1
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    times = [seconds for group in groups.values() for seconds in group.ways.values()]
    times += [group.floor for group in groups.values() if group.floor]
    axes.set_xlim(min(times) / 2, max(times) * 40)
    axes.margins(y=0.01)
    axes.xaxis.set_major_formatter(lambda x, _: spell(x))
    axes.set_xlabel("time, median (logarithmic; shorter is better)")
    axes.set_title(f"native against composed, on {'; '.join(sorted(machines))}", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=5, fontsize=8)
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
