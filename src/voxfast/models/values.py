"""Values of a configuration that was read from a file; nothing in it is believed."""

from typing import Any

from voxfast.errors import CheckpointError

__all__ = ["integer", "number", "quantization", "section"]


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; raises CheckpointError if there is none."""
    value = config.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"the configuration needs an object {key!r}; it has {value!r:.60}")
    return value


def integer(config: dict[str, Any], key: str, least: int, most: int) -> int:
    """The integer under a key; raises CheckpointError if it is none or out of range."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(
            f"{key!r} must be an integer from {least} to {most}; it is {value!r:.60}"
        )
    return value


def number(config: dict[str, Any], key: str, least: float, most: float) -> float:
    """The number under a key; raises CheckpointError if it is none or out of range."""
    value = config.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise CheckpointError(f"{key!r} must be a number from {least} to {most}; it is {value!r:.60}")


def quantization(config: dict[str, Any]) -> tuple[int, int] | None:
    """(group_size, bits) of packed weights, or None if the configuration names no packing.

    Raises:
        CheckpointError: on a packing that MLX does not have.
    """
    found = config.get("quantization") or config.get("quantization_config")
    if not found:
        return None
    packing = section({"quantization": found}, "quantization")
    if packing.get("mode", "affine") != "affine":
        raise CheckpointError(f"quantization mode {packing['mode']!r} is not supported; use affine")
    group_size = integer(packing, "group_size", 32, 128)
    bits = integer(packing, "bits", 2, 8)
    if group_size not in (32, 64, 128) or bits == 7:
        raise CheckpointError(
            f"MLX packs 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128; the checkpoint says "
            f"{bits} bits in groups of {group_size}"
        )
    return group_size, bits
