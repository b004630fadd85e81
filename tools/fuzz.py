"""Mutated input for every entry of voxfast that takes bytes: no crash, hang or foreign error.

    python tools/fuzz.py [--runs 20000] [--first 0] [ENTRY ...]

Each entry runs in a process of its own, with bounded memory and a watchdog, and every input
follows from its number: a failure is repeated with ``--first NUMBER --runs 1 ENTRY``. The
entries are in tests/fuzzing/entries.py; the test suite runs a small sample of the same.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

ROOT = Path(__file__).parent.parent
MOST_MEMORY = 6 << 30  # of address space: an allocation that a header asked for fails
MOST_SECONDS = 20  # for one input


def attack(name: str, first: int, runs: int) -> int:
    """Run one entry in this process; returns the number of failures."""
    sys.path.insert(0, str(ROOT / "tests"))
    from fuzzing.entries import ENTRIES, Entry

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failures, slowest = 0, (0.0, first)
    with tempfile.TemporaryDirectory(prefix="voxfast-fuzz-") as folder:
        entry = Entry(ENTRIES[name], Path(folder))
        begin = time.perf_counter()
        for number in range(first, first + runs):
            print(json.dumps({"at": number}), flush=True)
            before = time.perf_counter()
            try:
                entry.run(number)
            except BaseException:
                failures += 1
                print(json.dumps({"failed": number, "trace": traceback.format_exc()}), flush=True)
                if failures >= 20:
                    break
            slowest = max(slowest, (time.perf_counter() - before, number))
        seconds = time.perf_counter() - begin
    result = {
        "entry": name,
        "runs": number - first + 1,
        "seconds": round(seconds, 1),
        "slowest": [round(slowest[0], 2), slowest[1]],
        "failures": failures,
        "outcomes": dict(sorted(entry.outcomes.items())),
    }
    print(json.dumps(result), flush=True)
    return failures


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a process prints; one that prints nothing for too long is ended, with a traceback.

    Seconds are counted one by one: a machine that is suspended, or that stops both processes,
    loses one of them only.
    """
    lines: SimpleQueue[str] = SimpleQueue()
    assert process.stdout is not None
    reader = Thread(target=lambda: [*map(lines.put, process.stdout or ())], daemon=True)
    reader.start()
    quiet = 0
    while reader.is_alive() or not lines.empty():
        try:
            yield lines.get(timeout=1)
            quiet = 0
        except Empty:
            quiet += 1
            if quiet == MOST_SECONDS:
                process.send_signal(signal.SIGABRT)


def attack_apart(name: str, first: int, runs: int) -> bool:
    """Run one entry in a process of its own; returns whether all was well."""
    command = [sys.executable, __file__, "--here", "--first", str(first), "--runs", str(runs), name]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"}
    reached, line = first, ""
    with tempfile.TemporaryFile("w+", errors="replace") as log:  # decoders talk a lot
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        for line in lines_of(process):
            message = json.loads(line)
            if "at" in message:
                reached = message["at"]
            elif "failed" in message:
                print(f"{name}: input {message['failed']}\n{message['trace']}", flush=True)
            else:
                print(line, end="", flush=True)
        code = process.wait()
        if code not in (0, 1) or (code == 1 and line.startswith('{"at"')):
            log.seek(0)
            print(f"{name}: died with {code} at input {reached}")
            print(log.read()[-6000:])
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="default: all")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each entry")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--here", action="store_true", help="in this process, one entry")
    args = parser.parse_args()
    if args.here:
        return min(1, attack(args.entries[0], args.first, args.runs))
    sys.path.insert(0, str(ROOT / "tests"))
    from fuzzing.entries import ENTRIES

    names = args.entries or list(ENTRIES)
    good = [attack_apart(name, args.first, args.runs) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
