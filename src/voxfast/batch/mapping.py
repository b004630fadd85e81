"""Transcription as a step of a pipeline of one's own: ``ray.data.Dataset.map_batches``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxfast.batch.manifest import without_empty
from voxfast.batch.options import OPTIONS, read_option
from voxfast.batch.recordings import Recording, id_of, place_of
from voxfast.batch.transcriber import Result, Transcriber
from voxfast.errors import DatasetError
from voxfast.formats import SUFFIXES
from voxfast.hub import DEFAULT_MODEL

__all__ = ["TranscribeBatch"]

Column = npt.NDArray[Any]


class TranscribeBatch:
    """A callable class for ``map_batches``: each actor loads the model once.

    ::

        rows = ray.data.read_parquet("calls.parquet")  # with a column "path"
        rows.map_batches(
            voxfast.batch.TranscribeBatch,
            fn_constructor_kwargs={"model": "qwen3-asr-0.6b-8bit", "formats": ["json", "srt"]},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=16),
            num_cpus=2,
        ).write_parquet("transcripts")

    To the columns that are there it adds ``text``; ``duration``, ``skipped`` and ``seconds``
    (float64, NaN where nothing was heard); ``words``, how many there are; ``language``; ``error``
    and ``warnings``, texts that are empty if all is well; ``model``, ``version``; and a column of
    texts for each format (``json``, ``srt``, …). A recording that fails is a row with an ``error``.

    Args:
        model, formats, dtype, **options: see :class:`voxfast.batch.Transcriber`.
        path_column: the column of paths and addresses.
        option_columns: columns with options of a recording, such as ``language``.

    Raises:
        ModelNotFoundError, CheckpointError, InvalidOptionError: see :func:`voxfast.load`.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        formats: Sequence[str] = ("json",),
        dtype: str | None = None,
        *,
        path_column: str = "path",
        option_columns: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._path_column, self._option_columns = path_column, tuple(option_columns)
        self._transcriber = Transcriber(model, formats, dtype, **options)

    def __call__(self, batch: Mapping[str, Column]) -> dict[str, Column]:
        """Transcribe the recordings of a batch; columns are [B]."""
        suffixes = [SUFFIXES[name] for name in self._transcriber.settings.formats]
        rows = [self._row(batch, i, suffixes) for i in range(len(batch[self._path_column]))]
        kinds = {**_COLUMNS, **dict.fromkeys(suffixes, np.dtype(object))}
        new = {name: np.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
        return {**batch, **new}

    def _row(self, batch: Mapping[str, Column], i: int, suffixes: list[str]) -> dict[str, Any]:
        """The new columns of one recording."""
        path = _plain(batch[self._path_column][i])
        try:
            cells = {name: _plain(batch[name][i]) for name in self._option_columns}
            result = self._transcriber(_recording(path, without_empty(cells)))
        except DatasetError as error:  # one row is no reason to stop
            result = Result(Recording("", str(path)), error=str(error))
        line = result.line(self._transcriber.settings)
        return {
            **{name: line[name] for name in _COLUMNS if name != "text"},
            "text": "" if result.transcript is None else result.transcript.text,
            "words": line["words"] or 0,
            "language": line["language"] or "",
            "error": line["error"] or "",
            "warnings": "; ".join(line["warnings"]),
            **{suffix: result.texts.get(suffix, "") for suffix in suffixes},
        }


def _plain(cell: Any) -> Any:
    """A cell without NumPy's types."""
    return cell.tolist() if isinstance(cell, np.generic | np.ndarray) else cell


def _recording(path: object, cells: Mapping[str, Any]) -> Recording:
    if not isinstance(path, str):
        raise DatasetError(f"{path!r:.80} is no path")
    options = {
        name: read_option(name, cell) if name in OPTIONS else cell for name, cell in cells.items()
    }
    try:
        return Recording(id_of(path), place_of(path), options)
    except UnicodeError as error:
        raise DatasetError(f"{path!r:.80} is no path: {error}") from error


_COLUMNS = {
    **dict.fromkeys(("duration", "skipped", "seconds"), np.dtype(np.float64)),
    "words": np.dtype(np.int64),
    **dict.fromkeys(
        ("text", "language", "error", "warnings", "model", "version"), np.dtype(object)
    ),
}
"""The new columns, but for those of formats. None becomes NaN where it is a number."""
