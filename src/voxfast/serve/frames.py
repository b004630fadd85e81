"""Frames of JSON from clients: read with care, and values out of them by name."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from voxfast.serve.dialect import Problem

__all__ = ["audio", "boolean", "number", "obj", "read", "terms", "text", "write"]

MOST_TERMS, LONGEST_TEXT = 1000, 4000


def read(frame: str | bytes) -> dict[str, Any]:
    """The object in a text frame; raises Problem for anything else."""
    if isinstance(frame, bytes):
        raise Problem("a binary frame; this protocol has JSON in text frames", "invalid_json")
    try:
        # NaN and Infinity are no JSON.
        value = json.loads(frame, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Problem("a frame that is not JSON", "invalid_json") from None
    if not isinstance(value, dict):
        raise Problem("a frame of JSON that is not an object", "invalid_json")
    return value


def write(event: Mapping[str, Any]) -> str:
    """An event as a text frame."""
    return json.dumps(event, ensure_ascii=True, allow_nan=False)


def audio(event: Mapping[str, Any], most: int | None = None) -> bytes:
    """The Base64 under ``audio``.

    Args:
        most: bytes that a frame may hold; None: as many as come.
    """
    value = event.get("audio")
    if not isinstance(value, str):
        raise Problem("audio must be a text of Base64", "invalid_audio", param="audio")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Problem("audio is not Base64", "invalid_audio", param="audio") from None
    if most is not None and len(data) > most:
        raise Problem(
            f"{len(data)} bytes of audio in a frame; send at most {most}",
            "audio_too_large",
            413,
            param="audio",
        )
    return data


def obj(value: Any, name: str) -> dict[str, Any] | None:
    """An object or null."""
    if value is None or isinstance(value, dict):
        return value
    raise _wrong(name, "an object or null")


def text(value: Any, name: str) -> str | None:
    """A text of moderate length, or null; empty counts as null."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _wrong(name, f"a text of at most {LONGEST_TEXT} characters, or null")
    # Lone surrogates, which JSON can hold and UTF-8 cannot, go no further.
    return value.encode("utf-8", "replace").decode() or None


def number(value: Any, name: str, least: float, most: float) -> float | None:
    """A number from ``least`` to ``most``, or null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _wrong(name, f"a number from {least:g} to {most:g}, or null")
    return float(value)


def boolean(value: Any, name: str) -> bool | None:
    """True, false or null."""
    if value is None or isinstance(value, bool):
        return value
    raise _wrong(name, "true, false or null")


def terms(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts, or null."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_TERMS:
        raise _wrong(name, f"a list of at most {MOST_TERMS} texts, or null")
    found = (text(term, name) for term in value)
    return tuple(term for term in found if term)


def _wrong(name: str, expected: str) -> Problem:
    return Problem(f"{name} must be {expected}", "invalid_value", param=name)


def _no_constant(name: str) -> Any:
    raise ValueError(name)
