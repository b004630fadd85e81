"""Options of recordings: as they stand in tables, what no model can take, and trials with one."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxfast._channels import check_channel
from voxfast._pauses import ENDPOINT_MS
from voxfast.batch.recordings import Recording
from voxfast.errors import DatasetError, InvalidAudioError, InvalidOptionError
from voxfast.models.vocabulary import read_vocabulary

__all__ = ["OPTIONS", "Trial", "check_options", "read_option", "several", "trials_of"]

_MOST_TRIALS = 1000  # of one option: prompts and vocabularies may differ in all rows
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """A value of an option that a model may refuse, to be tried before the first recording.

    Attributes:
        name: of the option.
        value: of it.
        origin: the rows that have it, in words.
    """

    name: str
    value: Any
    origin: str


def trials_of(recordings: Iterable[Recording]) -> tuple[Trial, ...]:
    """The different options of recordings, each once; a session takes them one by one."""
    found: dict[str, dict[str, tuple[Any, list[str]]]] = {}
    for recording in recordings:
        for name, value in recording.options.items():
            values = found.setdefault(name, {})
            key = json.dumps(value, default=repr)
            if name != "channel" and (key in values or len(values) < _MOST_TRIALS):
                values.setdefault(key, (value, []))[1].append(recording.where)
    return tuple(
        Trial(name, value, several(rows, ", "))
        for name, values in found.items()
        for value, rows in values.values()
    )


def several(texts: Sequence[str], between: str = "; ") -> str:
    """The first of some texts, and how many more there are."""
    more = len(texts) - _MOST_NAMED
    return between.join(texts[:_MOST_NAMED]) + (f"{between}and {more} more" if more > 0 else "")


def check_options(options: Mapping[str, Any]) -> None:
    """Check what no model and no recording can take.

    Raises:
        InvalidOptionError: for such an option.
    """
    if "endpoint_ms" in options:
        value, (least, most) = options["endpoint_ms"], ENDPOINT_MS
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            raise InvalidOptionError(f"endpoint_ms {value!r:.80} is not {least} to {most}")
    if "channel" in options:
        try:
            channel = check_channel(options["channel"])
        except InvalidAudioError as error:
            raise InvalidOptionError(str(error)) from error
        if channel == "each":
            raise InvalidOptionError("channel 'each': a recording has one transcript; name one")


def read_option(name: str, cell: object) -> Any:
    """An option of a recording from a cell of a table.

    Raises:
        DatasetError: if it is none of its kind.
    """
    try:
        return OPTIONS[name](name, cell)
    except (InvalidAudioError, InvalidOptionError) as error:
        raise DatasetError(str(error)) from error


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
    read_vocabulary(value)
    return value


def _endpoint(column: str, value: object) -> float:
    number = _number(column, value)
    check_options({column: number})
    return number


def _channel(column: str, value: object) -> int | str:
    return check_channel("mix" if value == "mix" else _whole(column, value))


OPTIONS: dict[str, Callable[[str, object], Any]] = {
    "language": _text,
    "prompt": _text,
    "vocabulary": _phrases,
    "delay_ms": _whole,
    "endpoint_ms": _endpoint,
    "skip_silence": _truth,
    "channel": _channel,
}
