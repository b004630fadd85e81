"""Deterministic mutations of bytes and of JSON."""

import copy
import json
from random import Random
from typing import Any

__all__ = ["mutate_bytes", "mutate_json", "mutate_json_text"]

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONG = (0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 1 << 48, 1 << 40)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 64, 65535, 1 << 20, 1 << 31, -(1 << 31), (1 << 32) - 1,
    1 << 48, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 200, 0.0, -0.0, 0.5, -1.5, 1e-300, 1e308,
    float("inf"), float("-inf"), float("nan"), "", "0", "a", "../../etc/passwd", "/dev/zero", "\0",
    "\ud800", "é" * 300, "__class__", [], {}, [[]], [0], [1, 2, 3, 4], [None] * 9, {"": 0},
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
)  # fmt: skip


def mutate_bytes(rng: Random, data: bytes, *, other: bytes = b"") -> bytes:
    """``data`` after one to eight changes, most of them near its beginning.

    Args:
        other: a second valid input, parts of which are spliced in.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _change(rng, changed, other)
    return bytes(changed)


def _change(rng: Random, data: bytearray, other: bytes) -> None:
    reach = len(data) if rng.random() < 0.4 else min(len(data), rng.choice((16, 64, 256)))
    at = rng.randrange(reach + 1)
    kind = rng.randrange(9)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.randrange(256)
    elif kind in (2, 3):
        size = rng.choice((2, 4, 8))
        value = rng.choice((*_NUMBERS, *_LONG, len(data), len(data) + rng.randrange(-9, 9)))
        order = rng.choice(("little", "little", "big"))
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)
    elif kind == 4:
        del data[at : at + rng.choice((1, 2, 4, 16, 200))]
    elif kind == 5:
        data[at:at] = data[at : at + rng.choice((1, 4, 16, 200))] * rng.choice((1, 1, 2, 20))
    elif kind == 6:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16, 200)))
    elif kind == 7:
        del data[rng.randrange(len(data) + 1) :]
    elif other:
        start = rng.randrange(len(other))
        data[at:at] = other[start : start + rng.choice((4, 40, 400))]


def mutate_json(rng: Random, value: Any) -> Any:
    """A copy of a JSON value after one to four changes of its structure."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _change_json(rng, value)
    return value


def mutate_json_text(rng: Random, value: Any) -> bytes:
    """The text of a mutated JSON value; now and then no JSON any more."""
    text = json.dumps(mutate_json(rng, value), ensure_ascii=rng.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        return mutate_bytes(rng, data)
    if rng.random() < 0.01:
        return rng.choice((b"[" * 200_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe" + data))
    return data


def _change_json(rng: Random, root: Any) -> Any:
    places = list(_places(root))
    if not places or rng.random() < 0.02:
        return _value(rng)
    holder, key = rng.choice(places)
    old, kind = holder[key], rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", str(key).upper(), f"{key}.0", "weight"))] = holder.pop(key)
    elif kind == 2:
        other, there = rng.choice(places)
        if there in other if isinstance(other, dict) else there < len(other):
            holder[key] = copy.deepcopy(other[there])
    elif kind in (3, 4) and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = rng.choice((old + 1, old - 1, old * 2, -old, old / 2, str(old), [old]))
    elif kind == 5 and isinstance(old, list):
        holder[key] = rng.choice((old * 2, old[:-1], [*old, None], old[::-1], [old]))
    elif kind == 6 and isinstance(old, str):
        holder[key] = rng.choice((old + "x", old[:-1], old.upper(), old * 100, f"../{old}", [old]))
    else:
        holder[key] = _value(rng)
    return root


def _value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(_VALUES))


def _places(value: Any) -> Any:
    """Every (holder, key) below a value; long lists only in part."""
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        step = max(1, len(value) // 8)
        for index in range(0, len(value), step):
            yield value, index
            yield from _places(value[index])
