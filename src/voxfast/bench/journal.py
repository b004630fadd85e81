"""Files of results: whole ones, and those of a benchmark that is under way."""

import datetime
import fcntl
import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self

import mlx.core as mx

from voxfast._native import _ext
from voxfast._version import version
from voxfast.bench.dataset import MALFORMED, fault
from voxfast.bench.measure import Record
from voxfast.errors import DatasetError

__all__ = ["Journal", "Run", "load_runs", "machine", "model_identity", "versions", "write_results"]

FORMAT = "voxfast bench 1"


@dataclass
class Run:
    """One model with one set of options over a data set.

    Attributes:
        options: mode, chunk length, delay, dtype, kv_bits: what was asked for.
        model: its identity; see :func:`model_identity`.
        setting: data set, machine and versions.
        records: what was measured, stream by stream.
    """

    options: dict[str, Any]
    model: dict[str, Any]
    setting: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    @property
    def head(self) -> dict[str, Any]:
        """Everything but the records."""
        return {"options": self.options, "model": self.model, "setting": self.setting}


class Journal:
    """The records of a benchmark so far, beside the file that its results will go to.

    Every record is on the disk before the next stream begins. A benchmark that was
    interrupted finds its records here, and goes on after them; one that was completed finds
    them in its results, and has nothing left to measure.

    Attributes:
        done: the records of each run.
        is_complete: whether they are from the results.

    Raises:
        DatasetError: from the constructor, if the records were made in another setting.
    """

    def __init__(self, results: Path | None, heads: Sequence[dict[str, Any]]) -> None:
        self._path = None if results is None else results.with_name(f"{results.name}.part")
        self._file: IO[str] | None = None
        self.done: list[list[Record]] = [[] for _ in heads]
        self.is_complete = results is not None and results.exists()
        if results is not None and self.is_complete:
            self.done = _results_of(results, heads)
        if self._path is None or self.is_complete:
            return
        self._file = _open_alone(self._path)
        try:
            whole = self._read(self._path, heads)
        except DatasetError:
            self._file.close()
            raise
        self._file.truncate(whole)  # a line that was cut off is written anew
        # Written with the first record: a benchmark that measured nothing leaves nothing.
        self._heads = None if whole else list(heads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            if self._heads is not None:
                self.remove()
            self._file.close()

    def add(self, run: int, record: Record) -> None:
        """Keep a record of the run of that number."""
        self.done[run].append(record)
        if self._file is not None:
            if self._heads is not None:
                self._write(self._heads)
                self._heads = None
            self._write({"run": run, "record": record.to_json()})

    def remove(self) -> None:
        """Delete the file: its records are in the results."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, line: Any) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, path: Path, heads: Sequence[dict[str, Any]]) -> int:
        """Take over the records of a file; returns the length in bytes of its whole lines."""
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            return 0
        try:
            before, *entries = map(json.loads, whole)
            if difference := _difference(before, heads):
                raise DatasetError(
                    f"{path} is of a benchmark that was interrupted, and {difference}; repeat that "
                    f"command to go on with it, or delete the file to begin again"
                )
            for entry in entries:
                self.done[entry["run"]].append(Record.from_json(entry["record"]))
        except DatasetError:
            raise
        except MALFORMED as error:
            raise DatasetError(
                f"{path} is damaged: {fault(error)}; delete the file to begin again"
            ) from error
        return sum(map(len, whole))


def _open_alone(path: Path) -> IO[str]:
    """Open a file to append to it, made if it is missing.

    Raises:
        DatasetError: while another process has it open.
    """
    file = path.open("a", encoding="utf-8", newline="\n")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DatasetError(f"{path} is being written by another voxfast bench") from None
    except OSError:
        pass  # a file system without locks
    return file


def _results_of(path: Path, heads: Sequence[dict[str, Any]]) -> list[list[Record]]:
    """The records in a file of results that is about to be written.

    Raises:
        DatasetError: if they are not of these very runs; a file is never replaced.
    """
    try:
        runs = load_runs(path)
    except DatasetError as error:
        raise DatasetError(f"{error}; name another file as --output") from error
    if difference := _difference([run.head for run in runs], heads):
        raise DatasetError(
            f"{path} has the results of another benchmark: {difference}; name another file as "
            f"--output, or delete this one"
        )
    return [run.records for run in runs]


def _difference(before: Any, heads: Sequence[dict[str, Any]]) -> str | None:
    """The first place at which the heads in a file and those of a command differ, in words."""
    after = json.loads(json.dumps(list(heads)))
    if not isinstance(before, list) or len(before) != len(after):
        number = len(before) if isinstance(before, list) else None
        return f"its number of runs was {number}, not {len(after)}"
    found = (_change(old, new) for old, new in zip(before, after, strict=True))
    return next(filter(None, found), None)


def _change(before: Any, after: Any, place: str = "") -> str | None:
    """The first place at which two plain structures differ, in words."""
    if before == after:
        return None
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *after]:
            if found := _change(before.get(key), after.get(key), f"{place} {key}".strip()):
                return found
    return f"its {place or 'head'} was {before!r:.80}, not {after!r:.80}"


def write_results(path: Path, runs: Sequence[Run], summaries: Sequence[dict[str, Any]]) -> None:
    """Write a file of results; it appears whole or not at all."""
    document = {
        "format": FORMAT,
        "date": datetime.date.today().isoformat(),
        "command": sys.argv,
        "runs": [
            run.head | {"summary": summary, "records": [record.to_json() for record in run.records]}
            for run, summary in zip(runs, summaries, strict=True)
        ],
    }
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_runs(path: Path) -> list[Run]:
    """The runs of a file of results.

    Raises:
        DatasetError: if it is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return [_run(run) for run in document["runs"]]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {fault(error)}") from error
    except MALFORMED as error:
        raise DatasetError(f"{path} holds no results of voxfast bench: {fault(error)}") from error


def _run(data: dict[str, Any]) -> Run:
    """A run from JSON; raises KeyError or TypeError where tables and figures would."""
    records = [Record.from_json(record) for record in data["records"]]
    run = Run(data["options"], data["model"], data["setting"], records)
    machine, dataset = run.setting["machine"], run.setting["dataset"]
    names = [run.options["mode"], run.model["name"], machine["processor"], dataset["name"]]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"one of {names} is no name")
    machine["threads"], run.options["chunk_ms"]
    if not all(isinstance(part, dict) for part in run.setting.values()):
        raise TypeError("a part of its setting is no object")
    return run


def model_identity(name: str, folder: Path) -> dict[str, Any]:
    """What a model is, beyond its name.

    The fingerprint covers the names and sizes of its files, and the first and last megabyte
    of each: reading many gigabytes to the end would take longer than many a benchmark.
    """
    digest, size = hashlib.sha256(), 0
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".txt"):
            continue
        length = path.stat().st_size
        size += length
        digest.update(f"{path.name} {length}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**20))
            file.seek(max(0, length - 2**20))
            digest.update(file.read())
    return {"name": name, "bytes": size, "fingerprint": digest.hexdigest()[:16]}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": _ext.num_threads(),
        "kernels": _ext.isa(),
        "device": str(mx.default_device()),
    }


def versions() -> dict[str, str]:
    """Of everything that may change a figure."""
    packages = ("mlx", "numpy", "jiwer")
    return {
        "voxfast": version(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _processor() -> str:
    """The processor's own name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
