"""Manifests: tables of recordings, with an id and options for each."""

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from voxfast._addresses import is_address
from voxfast._channels import check_channel
from voxfast.batch.recordings import Recording, check_id, id_of, place_of
from voxfast.errors import DatasetError, InvalidOptionError
from voxfast.models.vocabulary import read_vocabulary

__all__ = ["MANIFESTS", "OPTIONS", "read_manifest", "read_option", "without_empty"]

Row = Mapping[str, Any]

_PATH_COLUMNS = ("path", "file", "audio", "audio_filepath", "address", "url")


def read_manifest(name: str, unused: set[str]) -> Iterator[Recording]:
    """The recordings of a manifest, in its order.

    A row has the path or address of a recording (``path``, ``file``, ``audio``,
    ``audio_filepath``, ``address`` or ``url``; paths are relative to the manifest), and
    optionally ``id`` and options: ``language``, ``prompt``, ``vocabulary``, ``delay_ms``,
    ``endpoint_ms``, ``skip_silence``, ``channel``. Empty cells mean nothing.

    Args:
        name: its path, with a suffix of :data:`MANIFESTS`.
        unused: takes the names of the other columns.

    Raises:
        DatasetError: if it cannot be read, or a row is wrong; it says which.
        ImportError: if Parquet's reader is missing.
    """
    folder = Path(place_of(name)).parent
    try:
        for number, row in enumerate(MANIFESTS[Path(name).suffix.lower()](name), 1):
            try:
                yield _recording(row, folder, unused)
            except (DatasetError, ValueError, TypeError) as error:
                raise DatasetError(f"{name}, recording {number}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not UTF-8: {error}") from error


def _recording(row: Row, folder: Path, unused: set[str]) -> Recording:
    """The recording of a row."""
    cells = without_empty(row)
    named = [key for key in _PATH_COLUMNS if key in cells]
    if len(named) != 1:
        columns = ", ".join(named or _PATH_COLUMNS)
        raise DatasetError(f"it needs one path, and has {len(named)} ({columns})")
    path = cells[named[0]]
    if not isinstance(path, str) or "\0" in path:
        raise DatasetError(f"{named[0]} {path!r:.80} is no path")
    id_ = cells.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise DatasetError(f"the id {id_!r:.80} is neither a text nor a whole number")
    options = {name: read_option(name, cells[name]) for name in OPTIONS if name in cells}
    unused.update(map(str, cells.keys() - {named[0], "id"} - OPTIONS.keys()))
    place = path if is_address(path) else str(folder / path)
    return Recording(id_of(path) if id_ is None else check_id(str(id_)), place_of(place), options)


def without_empty(row: Row) -> dict[str, Any]:
    """The cells of a row that say something; a table without a value there may have NaN."""
    return {key: value for key, value in row.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or value == "" or value != value


def read_option(name: str, cell: object) -> Any:
    """An option of a recording from a cell of a table.

    Raises:
        DatasetError: if it is none of its kind.
    """
    return OPTIONS[name](name, cell)


def _text(column: str, value: object) -> str:
    if not isinstance(value, str):
        raise DatasetError(f"{column} {value!r:.80} is no text")
    return value


def _number(column: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DatasetError(f"{column} {value!r:.80} is no number")
    with contextlib.suppress(ValueError, OverflowError):
        if math.isfinite(number := float(value)):
            return number
    raise DatasetError(f"{column} {value!r:.80} is no number")


def _whole(column: str, value: object) -> int:
    number = _number(column, value)
    if not number.is_integer():
        raise DatasetError(f"{column} {value!r:.80} is no whole number")
    return int(number)


def _truth(column: str, value: object) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise DatasetError(f"{column} {value!r:.80} is neither true nor false")
    return known[str(value).lower()]


def _phrases(column: str, value: object) -> list[Any]:
    """A list of phrases, each a text or [text, weight]; in a table, phrases between semicolons."""
    if isinstance(value, str):
        value = [phrase for phrase in value.split(";") if phrase.strip()]
    if not isinstance(value, list):
        raise DatasetError(f"{column} {value!r:.80} is no list of phrases")
    try:
        read_vocabulary(value)
    except InvalidOptionError as error:
        raise DatasetError(f"{column}: {error}") from error
    return value


def _channel(column: str, value: object) -> int | str:
    return check_channel("mix" if value == "mix" else _whole(column, value))


OPTIONS: dict[str, Callable[[str, object], Any]] = {
    "language": _text,
    "prompt": _text,
    "vocabulary": _phrases,
    "delay_ms": _whole,
    "endpoint_ms": _number,
    "skip_silence": _truth,
    "channel": _channel,
}


def _json_lines(name: str) -> Iterator[Row]:
    with Path(name).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{name}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{name}, line {number}: an object is expected")
            yield row


def _separated(name: str, delimiter: str) -> Iterator[Row]:
    with Path(name).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(
                        f"{name}, line {reader.line_num}: its cells are not as many as the columns"
                    )
                yield row
        except csv.Error as error:
            raise DatasetError(f"{name}, line {reader.line_num}: {error}") from error


def _parquet(name: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"reading {name} needs pyarrow: pip install pyarrow ({error})") from error
    try:
        with ParquetFile(name) as file:
            for batch in file.iter_batches():
                rows: Iterable[Row] = batch.to_pylist()
                yield from rows
    except ArrowException as error:
        raise DatasetError(f"{name} is no Parquet file: {error}") from error


MANIFESTS: dict[str, Callable[[str], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": lambda name: _separated(name, ","),
    ".tsv": lambda name: _separated(name, "\t"),
    ".parquet": _parquet,
}
"""Readers of rows, by the suffix of the manifest."""
