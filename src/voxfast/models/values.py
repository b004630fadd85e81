"""Validated access to the values of an untrusted configuration."""

from collections.abc import Mapping
from typing import Any

from voxfast.errors import CheckpointError

__all__ = [
    "AFFINE_ONLY",
    "BITS",
    "GROUP_SIZES",
    "check_packing",
    "integer",
    "number",
    "packing",
    "section",
]

# MLX's affine packing.
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)

AFFINE_ONLY = (
    "voxfast reads plain weights (float32, float16, bfloat16) and MLX's affine packing (2 to 8 "
    "bits); take another conversion, such as voxtral-mini-4b-4bit or qwen3-asr-0.6b-8bit, or "
    "make one in affine mode"
)


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; raises CheckpointError if there is none."""
    value = config.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"the configuration needs an object {key!r}; it has {value!r:.60}")
    return value


def integer(config: dict[str, Any], key: str, least: int, most: int) -> int:
    """The integer under a key; raises CheckpointError for another type or out of range."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(
            f"{key!r} must be an integer from {least} to {most}; it is {value!r:.60}"
        )
    return value


def number(config: dict[str, Any], key: str, least: float, most: float) -> float:
    """The number under a key; raises CheckpointError for another type or out of range."""
    value = config.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise CheckpointError(f"{key!r} must be a number from {least} to {most}; it is {value!r:.60}")


def packing(config: Mapping[str, Any]) -> Any:
    """The quantisation entry of a configuration; falsy if there is none."""
    return config.get("quantization") or config.get("quantization_config")


def check_packing(config: dict[str, Any]) -> None:
    """Raise CheckpointError for an unsupported packing; it names the packing.

    Bits and group sizes are not checked here: they follow from the shapes of the tensors.
    """
    found = packing(config)
    if not found:
        return
    entries = section({"quantization": found}, "quantization")
    for entry in (entries, *entries.values()):  # modules may have entries of their own
        if isinstance(entry, dict):
            mode = entry.get("quant_method") or entry.get("mode") or "affine"
            if mode != "affine":
                raise CheckpointError(f"the weights are packed as {mode!r:.60}. {AFFINE_ONLY}")
