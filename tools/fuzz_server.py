"""Mutated frames for every protocol of ``voxfast serve``: no crash, no leak, nobody else harmed.

    python tools/fuzz_server.py [--frames 20000] [--rounds 10] [--first 0] [DIALECT ...]

Each dialect gets a server of its own, and its frames in rounds, on eight connections at a time.
Beside them one client says clips, whose words must be those of each clip alone. Prints JSON, for
each dialect: frames, refusals by code, faults (a crash, an internal error, a connection that is
dropped or never ends, an answer of an odd form), the neighbour's clips and those that were wrong,
and the server's memory before the first round and after each. A connection follows from its
number. Exit code 1 if there was a fault or a wrong clip. The connections are described in
tests/fuzzing/server.py; the test suite runs a small sample of the same.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import voxfast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing.server import MESSAGE_KB, TARGETS, Tally, attack
from live_clients import Clip, load_clips
from serve_process import ServerProcess

OPTIONS = ["--max-sessions", "200", "--requests-per-minute", "0"]
OPTIONS += ["--max-message-kb", str(MESSAGE_KB)]


def settled(server: ServerProcess) -> bool:
    """Whether all sessions end."""
    end = time.monotonic() + 60
    while any(server.metrics()["voxfast_sessions"].values()):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def rounds(name: str, clips: list[Clip], options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a dialect."""
    server, tally, number = ServerProcess(OPTIONS), Tally(), options.first
    resident, begin = [server.resident_mb()], time.perf_counter()
    try:
        for _ in range(options.rounds):
            frames = options.frames // options.rounds
            coroutine = attack(name, server.address, clips, frames, number, tally)
            number = asyncio.run(coroutine)
            if not settled(server):
                tally.faults.append("sessions that do not end")
            resident.append(server.resident_mb())
    except OSError as error:  # it has died
        tally.faults.append(f"the server cannot be reached: {error}")
    code = server.end()
    tally.faults += [line[:2000] for line in server.complaints if '"level": "error"' in line]
    if code:
        tally.faults.append(f"the server ended with {code}")
    return {
        "frames": tally.frames,
        "connections": tally.connections,
        "answers": tally.answers,
        "refusals": dict(tally.refusals.most_common()),
        "faults": len(tally.faults),
        "first_faults": tally.faults[:20],
        "neighbour_clips": tally.clips,
        "neighbour_wrong": tally.wrong,
        "resident_mb": resident,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dialects", nargs="*", metavar="DIALECT", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--frames", type=int, default=20_000, help="for each dialect")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first connection")
    options = parser.parse_args()
    if unknown := {*options.dialects} - {*TARGETS}:
        parser.error(f"no dialect {min(unknown)!r}; there are {', '.join(TARGETS)}")
    with voxfast.load() as model:
        clips = load_clips(model, most=8)
    found = {}
    for name in options.dialects or TARGETS:
        found[name] = rounds(name, clips, options)
        print(f"{name}: {found[name]['faults']} faults", file=sys.stderr)
    print(json.dumps(found, indent=1))
    return int(any(each["faults"] or each["neighbour_wrong"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
