"""Manifests: tables of recordings, with an id and options for each."""

import csv
import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxfast._addresses import is_address
from voxfast.batch.options import OPTIONS, read_option, several
from voxfast.batch.recordings import Recording, check_id, id_of, place_of
from voxfast.errors import DatasetError

__all__ = ["MANIFESTS", "read_manifest", "without_empty"]

Row = Mapping[str, Any]
Reader = Callable[[str], Iterator[tuple[str, Row]]]

_PATH_COLUMNS = ("path", "file", "audio", "audio_filepath", "address", "url")


def read_manifest(name: str, unused: set[str]) -> Iterator[Recording]:
    """The recordings of a manifest, in its order.

    A row has the path or address of a recording (``path``, ``file``, ``audio``,
    ``audio_filepath``, ``address`` or ``url``; paths are relative to the manifest), and
    optionally ``id`` and options: ``language``, ``prompt``, ``vocabulary``, ``delay_ms``,
    ``endpoint_ms``, ``skip_silence``, ``channel``. Case does not matter. Empty cells mean
    nothing.

    Args:
        name: its path, with a suffix of :data:`MANIFESTS`.
        unused: takes the names of the other columns.

    Raises:
        DatasetError: if it cannot be read, or rows are wrong; it says which.
        ImportError: if Parquet's reader is missing.
    """
    folder = Path(place_of(name)).parent
    wrong: dict[str, list[str]] = {}  # places of rows, by what is wrong with them
    try:
        for place, row in MANIFESTS[Path(name).suffix.lower()](name):
            try:
                yield _recording(row, place, folder, unused)
            except (DatasetError, ValueError, TypeError) as error:
                wrong.setdefault(str(error), []).append(place)
    except OSError as error:
        raise DatasetError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not UTF-8: {error}") from error
    if wrong:
        texts = [f"{several(places, ', ')}: {reason}" for reason, places in wrong.items()]
        raise DatasetError(f"{name}, {several(texts)}")


def _recording(row: Row, place: str, folder: Path, unused: set[str]) -> Recording:
    """The recording of a row."""
    cells = {key.strip().lower(): value for key, value in without_empty(row).items()}
    other = sorted(cells.keys() - {*_PATH_COLUMNS, "id", *OPTIONS})
    for column in other:
        if meant := _meant(column):
            raise DatasetError(
                f"column {column!r:.80}: did you mean {meant}? Rename it, or leave it out"
            )
    unused.update(other)
    named = [key for key in _PATH_COLUMNS if key in cells]
    if not named:
        raise DatasetError(
            f"there is no path: it stands in a column {', '.join(_PATH_COLUMNS[:-1])} or "
            f"{_PATH_COLUMNS[-1]}, and what is in this row is {', '.join(cells) or 'nothing':.200}"
        )
    if len(named) > 1:
        raise DatasetError(f"{len(named)} paths ({', '.join(named)}); leave one of them")
    path = cells[named[0]]
    if not isinstance(path, str) or "\0" in path:
        raise DatasetError(f"{named[0]} {path!r:.80} is no path")
    id_ = cells.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise DatasetError(f"the id {id_!r:.80} is neither a text nor a whole number")
    options = {name: read_option(name, cells[name]) for name in OPTIONS if name in cells}
    absolute = path if is_address(path) else str(folder / path)
    id_ = id_of(path) if id_ is None else check_id(str(id_))
    return Recording(id_, place_of(absolute), options, place)


@functools.lru_cache
def _meant(column: str) -> str | None:
    """What a column with an unknown name is probably meant to be."""
    known = {name.replace("_", ""): name for name in (*_PATH_COLUMNS, "id", *OPTIONS)}
    plain = re.sub(r"[^a-z0-9]", "", column)
    found = [name for name in known if len(plain) > 3 and name.startswith(plain)]
    found = found or difflib.get_close_matches(plain, known, 1, 0.87)
    return known[found[0]] if found else None


def without_empty(row: Row) -> dict[str, Any]:
    """The cells of a row that say something; a table without a value there may have NaN."""
    return {key: value for key, value in row.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or value == "" or value != value


def _json_lines(name: str) -> Iterator[tuple[str, Row]]:
    with Path(name).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(
                    f"{name}, line {number}, column {error.colno}: {error.msg}"
                ) from error
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{name}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{name}, line {number}: an object is expected")
            yield f"line {number}", row


def _separated(name: str, delimiter: str) -> Iterator[tuple[str, Row]]:
    with Path(name).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            _check_header(name, reader.fieldnames or [], delimiter)
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(
                        f"{name}, line {reader.line_num}: its cells are not as many as the columns"
                    )
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise DatasetError(f"{name}, line {reader.line_num}: {error}") from error


def _check_header(name: str, columns: Sequence[str], delimiter: str) -> None:
    """Raise DatasetError if a table's columns are those of another kind of table."""
    if len(columns) == 1 and (other := next((c for c in ";\t," if c in columns[0]), None)):
        kinds = {",": "commas", "\t": "tabs", ";": "semicolons"}
        remedy = ", or name it .tsv" if other == "\t" else ", or name it .csv" * (other == ",")
        raise DatasetError(
            f"{name} has {kinds[other]} between its columns, and a {Path(name).suffix} has "
            f"{kinds[delimiter]}: save it with {kinds[delimiter]}{remedy}"
        )
    folded = [column.strip().lower() for column in columns]
    if twice := [column for column in folded if folded.count(column) > 1]:
        raise DatasetError(f"{name} has two columns {twice[0]!r:.80}; leave one of them")


def _parquet(name: str) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"reading {name} needs pyarrow: pip install pyarrow ({error})") from error
    try:
        with ParquetFile(name) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        raise DatasetError(f"{name} is no Parquet file: {error}") from error


MANIFESTS: dict[str, Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": lambda name: _separated(name, ","),
    ".tsv": lambda name: _separated(name, "\t"),
    ".parquet": _parquet,
}
"""Readers of rows and their places in the manifest, by its suffix."""
