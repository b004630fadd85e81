"""``voxfast serve`` as a process, for benches and tools: its memory, metrics and log."""

import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from live_clients import Address
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Figures", "ServerProcess"]

Figures: TypeAlias = dict[str, dict[tuple[str, ...], float]]
"""Samples of /metrics by name and the values of their labels."""


class ServerProcess:
    """``voxfast serve`` on free ports of this machine.

    Args:
        options: of the command.

    Attributes:
        address: where it listens.
        complaints: lines of its log that are more than notes.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        ports = ["--port", "0", "--wyoming", "0"]
        command = [sys.executable, "-m", "voxfast", "serve", *ports, *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self._lines = self._process.stderr
        self.complaints: list[str] = []
        self.address = Address(
            self._port(r"http://127.0.0.1:(\d+)"), self._port(r'"wyoming".*"port": (\d+)')
        )
        # The log is read, so that the server never waits for its reader.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _port(self, pattern: str) -> int:
        for line in self._lines:
            if found := re.search(pattern, line):
                return int(found[1])
        raise SystemExit(f"the server did not start: {self._process.wait()}")

    def _read(self) -> None:
        self.complaints += [line for line in self._lines if '"level": "info"' not in line]

    def resident_mb(self) -> int:
        """Its memory now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self) -> Figures:
        """Samples by name and the values of their labels."""
        url = f"http://127.0.0.1:{self.address.http}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        found: Figures = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name][tuple(sample.labels.values())] = sample.value
        return found

    def end(self) -> int:
        """End it in order; its exit code."""
        self._process.terminate()
        code = self._process.wait(60)
        self._reader.join()
        return code
