"""Ratios after a benchmark run: every backend of a group against the one called "native".

A benchmark sets ``benchmark.group`` and ``benchmark.extra_info["backend"]``, and, where there
is one, ``benchmark.extra_info["roofline"]``: the least time in seconds.
"""

from collections import defaultdict

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    groups = defaultdict(dict)
    for bench in session.benchmarks if session else []:
        if bench.stats.data and "backend" in bench.extra_info:
            groups[bench.group][bench.extra_info["backend"]] = bench
    for group, backends in groups.items():
        if "native" not in backends:
            continue
        native = backends["native"].stats.median
        terminalreporter.write_line(f"\n{group} (medians)")
        for backend, bench in backends.items():
            median = bench.stats.median
            line = f"  {backend:<12} {1e6 * median:>12.1f} us   {median / native:>7.1f} x native"
            if backend == "native" and "roofline" in bench.extra_info:
                roofline = bench.extra_info["roofline"]
                line += f"   {native / roofline:.1f} x roofline ({1e6 * roofline:.1f} us)"
            terminalreporter.write_line(line)
