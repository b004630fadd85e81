"""A whole archive: what is left of it goes to workers, and what they return to files."""

import contextlib
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxfast._addresses import check_address, is_address
from voxfast.batch.cluster import ActorPool, Cluster
from voxfast.batch.files import UNWRITABLE_NAMES, write_whole
from voxfast.batch.index import Index, difference, settings_key
from voxfast.batch.inputs import Inputs, collect
from voxfast.batch.options import trials_of
from voxfast.batch.pools import Pool
from voxfast.batch.processes import ProcessPool, processors, sensible_workers
from voxfast.batch.recordings import Recording, check_together, in_shard, place_of
from voxfast.batch.transcriber import Result, Settings, check_formats
from voxfast.errors import AudioFileError, InvalidOptionError
from voxfast.formats import SUFFIXES
from voxfast.hub import DEFAULT_MODEL, embedded_models, resolve

__all__ = ["ATTEMPTS", "Progress", "transcribe_files"]

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a recording is given to a worker, if its worker comes to an end each time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an archive has come.

    Attributes:
        recordings: how many there are, of this shard.
        earlier: how many of them were complete before this run.
        earlier_failed: how many failed before, and were not taken again.
        chosen: how many this run takes.
        done: how many of those are done, failed ones included.
        failed: how many of those failed.
        share: of the work of this run, 0 to 1, by the sizes of files.
        audio_seconds: of those that are done.
        elapsed_seconds: since the call.
        startup_seconds: of them, before the first was given to a worker.
        failure: the id and the error of the recording that was done last, if it failed.
    """

    recordings: int = 0
    earlier: int = 0
    earlier_failed: int = 0
    chosen: int = 0
    done: int = 0
    failed: int = 0
    share: float = 0.0
    audio_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    startup_seconds: float = 0.0
    failure: tuple[str, str] | None = None

    @property
    def has_failures(self) -> bool:
        """Whether a recording failed, in this run or before it."""
        return self.failed + self.earlier_failed > 0

    @property
    def speed(self) -> float:
        """Seconds of audio for each second of time."""
        return self.audio_seconds / self.elapsed_seconds if self.elapsed_seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate: the work that is left, at the pace until now; None before the first."""
        if not self.share:
            return None
        return (self.elapsed_seconds - self.startup_seconds) / self.share * (1 - self.share)


def transcribe_files(
    inputs: Inputs,
    output: str | os.PathLike[str],
    *,
    model: str | Path = DEFAULT_MODEL,
    formats: Sequence[str] = ("json",),
    dtype: str | None = None,
    workers: int | None = None,
    cluster: Cluster | None = None,
    retry: bool = False,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    attempts: int = ATTEMPTS,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Progress:
    """Transcribe recordings into a folder, with all workers at once.

    Each recording gets a file for each format, ``ID.SUFFIX``, whole or not at all, and a line in
    ``index.jsonl``. If the last line of an id has no error and names a file for each format, and
    they are there, it is not done again: a run that was interrupted goes on where it was. A
    recording that fails is a line with an ``error``; of a damaged one, the results have what
    could be heard.

    Args:
        inputs: see :func:`voxfast.batch.collect`.
        output: the folder, made if it is missing.
        model: see :func:`voxfast.load`.
        formats: keys of :data:`voxfast.formats.FORMATS`.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None: the model's own.
        workers: processes on this machine; None: as many as it has processors and memory for,
            with a GPU one.
        cluster: Ray's actors instead of processes.
        retry: take recordings again that failed, also with other options than before.
        limit: how many recordings to take, of those that are left.
        shard: (i, n): take only the i-th of n parts, counted from 1; each recording is in
            exactly one.
        attempts: how often a recording is taken whose worker comes to an end.
        progress: called at the beginning and after each recording.
        **options: ``channel``, a number or ``"mix"``, and those of :meth:`voxfast.Model.session`.

    Returns:
        How far it has come.

    Raises:
        DatasetError: if an input is not usable, ids get into one another's way, or another
            process fills the folder.
        AudioFileError: for an address of a kind that is not read.
        InvalidOptionError: for an option that cannot be, or if the folder has results with
            other options or of another model.
        ModelNotFoundError, CheckpointError: see :func:`voxfast.load`.
        ImportError: if a package is missing.
        OSError: if the folder cannot be written to.
    """
    begin = time.monotonic()
    plain = {key: value for key, value in options.items() if value is not None}
    settings = Settings(_model_name(model), check_formats(formats), dtype, plain)
    _check(workers=workers, limit=limit, attempts=attempts, shard=shard)
    if workers is not None and cluster is not None:
        raise InvalidOptionError("workers are of this machine; with a cluster, say its actors")
    recordings = _chosen(inputs, shard)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with Index(folder, shard) as index:
        left, state = _left(recordings, index, folder, settings, retry=retry)
        # The large ones first: none of them is to be left when all others are done.
        sizes = {recording.id: _size(recording) for recording in left}
        chosen = sorted(left, key=lambda recording: -sizes[recording.id])[:limit]
        whole = sum(sizes[recording.id] for recording in chosen)
        shares = {recording.id: sizes[recording.id] / whole for recording in chosen}
        state = replace(state, chosen=len(chosen))
        keeper = _Keeper(index, folder, settings, shares, state, progress, begin)
        if chosen:
            tried = replace(settings, trials=trials_of(left))
            with _pool(tried, workers, cluster, len(chosen)) as pool:
                _work(pool, deque(chosen), attempts, keeper)
        return keeper.state


def _model_name(model: str | Path) -> str:
    """A model's name; of a folder, its absolute path: workers may run in another folder."""
    folder = Path(model).expanduser()
    is_folder = str(model) not in embedded_models() and folder.is_dir()
    return place_of(str(folder)) if is_folder else str(model)


def _check(shard: tuple[int, int] | None, **numbers: int | None) -> None:
    """Raise InvalidOptionError for what cannot be."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InvalidOptionError(f"{name} {number}; expected 1 or more")
    if shard is None:
        return
    is_pair = isinstance(shard, tuple | list) and [type(part) for part in shard] == [int, int]
    if not (is_pair and 1 <= shard[0] <= shard[1]):
        raise InvalidOptionError(
            f"shard {shard!r:.60}; expected two numbers such as (2, 8): the part, counted from 1, "
            f"and how many there are"
        )


def _chosen(inputs: Inputs, shard: tuple[int, int] | None) -> list[Recording]:
    """The recordings of a shard; what was left out is logged."""
    found = collect(inputs)
    if found.left_out:
        kinds = ", ".join(f"{number} {kind}" for kind, number in found.left_out.most_common(8))
        _log.warning("files that are not taken for audio, by their names: %s", kinds)
    if found.empty:
        _log.warning("no recordings in %s", ", ".join(found.empty))
    if found.unused:
        _log.warning("columns without a meaning here: %s", ", ".join(sorted(found.unused)))
    chosen = [
        recording
        for recording in found.recordings.values()
        if shard is None or in_shard(recording.id, shard)
    ]
    for scheme in {item.path.partition("://")[0] for item in chosen if is_address(item.path)}:
        with contextlib.suppress(AudioFileError):  # that is an error of its recordings
            check_address(f"{scheme}://")  # its package may be missing
    return chosen


def _left(
    recordings: Sequence[Recording],
    index: Index,
    folder: Path,
    settings: Settings,
    *,
    retry: bool,
) -> tuple[list[Recording], Progress]:
    """The recordings that are to be done, and how far the archive has come."""
    suffixes = [SUFFIXES[name] for name in settings.formats]
    # The index is there in capitals, too, if the file system does not tell them apart.
    folds_case = index.path.with_name(index.path.name.upper()).exists()
    check_together([item.id for item in recordings], suffixes, folds_case=folds_case)
    left, earlier, failed = [], 0, 0
    for recording in recordings:
        entry = index.entries.get(recording.id)
        if entry is None or (entry.is_failed and retry):
            left.append(recording)
            continue
        wanted = settings_key(settings.model, settings.described(recording))
        if entry.settings != wanted:
            retry_too = ", or take what failed again (--retry, retry=True)" * entry.is_failed
            raise InvalidOptionError(
                f"{folder} has {recording.id!r} with other options: "
                f"{difference(entry.settings, wanted)}; repeat the earlier ones, or name another "
                f"folder{retry_too}"
            )
        if entry.is_failed:
            failed += 1
        elif all(
            # What is there without being named is of an earlier line, which failed.
            suffix in entry.suffixes and (folder / f"{recording.id}.{suffix}").exists()
            for suffix in suffixes
        ):
            earlier += 1
        else:
            left.append(recording)
    _warn_of_other_ids(left, recordings, index)
    return left, Progress(len(recordings), earlier, failed)


def _warn_of_other_ids(
    left: Sequence[Recording], recordings: Sequence[Recording], index: Index
) -> None:
    """Log which recordings the index knows by ids that no input has now."""
    ids = {recording.id for recording in recordings}
    others = {entry.path: id_ for id_, entry in index.entries.items() if id_ not in ids}
    found = [item for item in left if item.id not in index.entries and item.shown_path in others]
    if found:
        first = found[0]
        _log.warning(
            "%d of the recordings are in the index by other ids, and are transcribed again: %r "
            "is %r there; ids follow from how inputs are named, so name them as before",
            len(found),
            first.id,
            others[first.shown_path],
        )


def _size(recording: Recording) -> int:
    """Bytes of a recording, at least 1; 1 if they are not known."""
    with contextlib.suppress(OSError, ValueError):
        if not is_address(recording.path):
            return max(1, Path(recording.path).stat().st_size)
    return 1


def _pool(
    settings: Settings, workers: int | None, cluster: Cluster | None, recordings: int
) -> Pool:
    """The workers."""
    if cluster is not None:
        return ActorPool(settings, cluster)
    folder = resolve(settings.model)  # downloaded once, not by each worker
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    size = min(workers or sensible_workers(weights), recordings)
    return ProcessPool(settings, size, max(1, processors() // size))


def _work(pool: Pool, queue: deque[Recording], attempts: int, keeper: "_Keeper") -> None:
    """Have everything in the queue transcribed, and keep it."""
    tries: Counter[str] = Counter()
    keeper.begin()
    pool.fill(queue)
    while queue or pool.is_busy:
        results: list[Result] = []
        for came in pool.wait():
            if isinstance(came, Result):
                results.append(came)
                continue
            tries[came.recording.id] += 1
            if tries[came.recording.id] < attempts:
                _log.info("%s is taken again: %s", came.recording.id, came.reason)
                queue.appendleft(came.recording)
            else:
                times = "once" if attempts == 1 else f"{attempts} times"
                results.append(Result(came.recording, error=f"{came.reason}; tried {times}"))
        pool.fill(queue)  # first of all: workers go on while results are written
        for result in results:
            keeper.keep(result)


class _Keeper:
    """Writes results and their lines in the index, and counts."""

    def __init__(
        self,
        index: Index,
        folder: Path,
        settings: Settings,
        shares: Mapping[str, float],
        state: Progress,
        tell: Callable[[Progress], object] | None,
        begin: float,
    ) -> None:
        self._index, self._folder, self._settings, self._tell = index, folder, settings, tell
        self._shares = shares
        self._begin = begin  # of time.monotonic()
        self.state = state

    def begin(self) -> None:
        """The first recording is about to be taken."""
        self.state = replace(self.state, startup_seconds=time.monotonic() - self._begin)
        self._report()

    def keep(self, result: Result) -> None:
        """Write the results of a recording, and then its line.

        Raises:
            OSError: if the folder takes no more.
        """
        try:
            for suffix, text in result.texts.items():
                write_whole(self._folder / f"{result.recording.id}.{suffix}", text)
        except OSError as error:
            if error.errno not in UNWRITABLE_NAMES:
                raise
            result = replace(
                result, texts={}, error=f"its results cannot be written: {error.strerror}"
            )
        line = result.line(self._settings)
        self._index.add({**line, "files": self._earlier_files(line) + line["files"]})
        heard = 0.0 if result.transcript is None else result.transcript.duration
        self.state = replace(
            self.state,
            done=self.state.done + 1,
            failed=self.state.failed + (result.error is not None),
            share=min(1.0, self.state.share + self._shares[result.recording.id]),
            audio_seconds=self.state.audio_seconds + heard,
            elapsed_seconds=time.monotonic() - self._begin,
            failure=None if result.error is None else (result.recording.id, result.error),
        )
        self._report()

    def _earlier_files(self, line: Mapping[str, Any]) -> list[str]:
        """Other results of the recording that hold beside those of a line."""
        entry = self._index.entries.get(line["id"])
        if line["error"] is not None or entry is None or entry.is_failed:
            return []
        if entry.settings != settings_key(line["model"], line["options"]):
            return []
        names = [f"{line['id']}.{suffix}" for suffix in entry.suffixes]
        return [
            name for name in names if name not in line["files"] and (self._folder / name).exists()
        ]

    def _report(self) -> None:
        if self._tell is not None:
            self._tell(self.state)
