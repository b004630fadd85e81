"""Archives under fire: workers, actors, nodes and the driver are killed at random moments.

    python tools/batch_chaos.py [--recordings 190] [--broken 10] [--kills 6] [--seed 1] [WAY …]

Ways: ``one`` and ``two`` processes, ``ray`` on one node, ``nodes`` for two nodes on this machine
(both need Ray). An archive of mixed formats is transcribed once in peace, by one process. Then
each way does it again in a folder of its own: again and again something is killed, the driver
among it, and the command is started anew until all is done. In the end every recording must have
exactly one line in the index, the line must be that of the peaceful run but for its seconds, and
the files must be the same, byte for byte; between the kills, nothing may be half written.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from archive import make_archive

FORMATS = ("json", "srt")
WAYS = {"one": ["--workers", "1"], "two": ["--workers", "2"]}
ON_RAY = ["--actors", "2,2", "--attempts", "100"]
_STEP_SECONDS = 0.1
_MOST_SECONDS = 3600.0


def command(output: Path, extra: list[str]) -> list[str]:
    formats = [part for name in FORMATS for part in ("--format", name)]
    return [
        *(sys.executable, "-m", "voxfast", "batch", ".", "--output", str(output), "-q"),
        *formats,
        *extra,
    ]


def processes() -> dict[int, tuple[int, str]]:
    """All processes: parent and command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found[int(folder.name)] = (parent, line)
    return found


def workers_below(root: int) -> list[int]:
    """Worker processes and actors that descend from a process."""
    known = processes()
    below, grew = {root}, True
    while grew:
        more = {pid for pid, (parent, _) in known.items() if parent in below} - below
        below |= more
        grew = bool(more)
    return [
        pid
        for pid in below
        if "voxfast.batch.worker" in known.get(pid, (0, ""))[1]
        or "ray::_Actor" in known.get(pid, (0, ""))[1]
    ]


def lines_of(output: Path) -> list[dict[str, Any]]:
    """Whole lines of the index."""
    path = output / "index.jsonl"
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def files_of(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.name != "index.jsonl"
    }


class Peace:
    """What the archive gives when nothing is killed."""

    def __init__(self, output: Path) -> None:
        self.files = files_of(output)
        self.lines = {line["id"]: {**line, "seconds": 0} for line in lines_of(output)}

    def check(self, output: Path, *, is_done: bool) -> None:
        """Raise AssertionError unless everything that is there is whole, and there once."""
        lines = [{**line, "seconds": 0} for line in lines_of(output)]
        assert len({line["id"] for line in lines}) == len(lines), "a recording has two lines"
        for line in lines:
            assert line == self.lines[line["id"]], f"{line} is not {self.lines[line['id']]}"
        files = files_of(output)
        for name, data in files.items():
            if not name.endswith(".part"):
                assert data == self.files[name], f"{name} differs"
        for line in lines:
            assert files.keys() >= set(line["files"]), f"files of {line['id']} are missing"
        if is_done:
            assert {line["id"] for line in lines} == self.lines.keys(), "recordings are missing"
            assert files.keys() == self.files.keys(), "files are missing, or too many"


class LocalNodes:
    """Two nodes of Ray on this machine, one of which may go and come back."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        self._node = self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def replace(self) -> None:
        """One node vanishes, and a new one comes."""
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._node = self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    def close(self) -> None:
        self._cluster.shutdown()


def attack(
    way: str, archive: Path, output: Path, peace: Peace, kills: int, chance: random.Random
) -> dict[str, Any]:
    """Transcribe an archive while things are killed; returns what was killed."""
    nodes = LocalNodes() if way == "nodes" else None
    extra = WAYS.get(way) or [*ON_RAY, f"--ray={nodes.address if nodes else 'local'}"]
    extra = [*extra, "--attempts", "100"] if way in WAYS else extra
    targets = ["worker", "driver"] + ["node"] * (nodes is not None)
    killed = dict.fromkeys(targets, 0)
    pace = max(1, len(peace.lines) // (kills + 1))  # recordings between two kills, at most
    end = time.monotonic() + _MOST_SECONDS
    starts, code = 0, -1
    try:
        while code < 0:
            assert time.monotonic() < end, "it takes too long"
            starts += 1
            driver = subprocess.Popen(command(output, extra), cwd=archive)
            while sum(killed.values()) < kills and driver.poll() is None:
                wait_for(chance.randint(0, pace), driver, output)
                time.sleep(chance.uniform(0, 0.5))
                # In turn, so that each is killed.
                target = targets[sum(killed.values()) % len(targets)]
                if driver.poll() is None and strike(target, driver, nodes, chance):
                    killed[target] += 1
                    if target == "driver":
                        break
            code = driver.wait()
            peace.check(output, is_done=code >= 0)
        assert code == 1, f"exit code {code}; there are broken recordings, so 1 is expected"
    finally:
        if nodes is not None:
            nodes.close()
    return {"killed": killed, "starts": starts}


def wait_for(more: int, driver: "subprocess.Popen[bytes]", output: Path) -> None:
    """Wait until so many more recordings are done, or the driver has ended."""
    goal = len(lines_of(output)) + more
    while driver.poll() is None and len(lines_of(output)) < goal:
        time.sleep(_STEP_SECONDS)


def strike(
    target: str, driver: "subprocess.Popen[bytes]", nodes: LocalNodes | None, chance: random.Random
) -> bool:
    """Kill something; False if it is not there."""
    if target == "driver":
        driver.kill()
        return True
    if target == "node":
        assert nodes is not None
        nodes.replace()
        return True
    # The actors of nodes are children of this process's raylets, not of the driver.
    workers = workers_below(driver.pid if nodes is None else os.getpid())
    if not workers:
        return False
    try:
        os.kill(chance.choice(workers), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", choices=["one", "two", "ray", "nodes"], metavar="WAY")
    parser.add_argument("--recordings", type=int, default=190)
    parser.add_argument("--broken", type=int, default=10)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="voxfast-chaos-") as name:
        folder = Path(name)
        archive = folder / "archive"
        make_archive(
            archive, options.recordings, options.broken, longest=options.longest, seed=options.seed
        )
        quiet = folder / "peace"
        begin = time.monotonic()
        subprocess.run(command(quiet, WAYS["one"]), cwd=archive, check=False)
        peace = Peace(quiet)
        assert len(peace.lines) == options.recordings + options.broken
        failed = sum(line["error"] is not None for line in peace.lines.values())
        assert failed == options.broken, f"{failed} failed"
        print(
            f"in peace: {len(peace.lines)} recordings, {time.monotonic() - begin:.0f} s", flush=True
        )
        for way in options.ways or ["one", "two"]:
            begin = time.monotonic()
            told = attack(
                way, archive, folder / way, peace, options.kills, random.Random(options.seed)
            )
            print(f"{way}: the same, {told}, {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
