"""Ratios after a benchmark run: every way of a group against the one called "native".

A benchmark sets ``benchmark.group`` and ``benchmark.extra_info["way"]``, and, where there
is one, ``benchmark.extra_info["floor"]``: seconds that the work takes at the very least.
"""

from collections import defaultdict

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    groups = defaultdict(dict)
    for bench in session.benchmarks if session else []:
        if bench.stats.data and "way" in bench.extra_info:
            groups[bench.group][bench.extra_info["way"]] = bench
    for group, ways in groups.items():
        if "native" not in ways:
            continue
        native = ways["native"].stats.median
        terminalreporter.write_line(f"\n{group} (medians)")
        for way, bench in ways.items():
            median = bench.stats.median
            line = f"  {way:<12} {1e6 * median:>12.1f} us   {median / native:>7.1f} x native"
            if way == "native" and "floor" in bench.extra_info:
                floor = bench.extra_info["floor"]
                line += f"; the floor is {1e6 * floor:.1f} us, {native / floor:.1f} times less"
            terminalreporter.write_line(line)
