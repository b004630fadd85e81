"""Validation of arrays of samples, with errors that name the remedy."""

from typing import Any

import numpy as np
import numpy.typing as npt

from voxfast.errors import InvalidAudioError

LOUDEST = 16.0
"""Float samples beyond ±1 may be loud audio; beyond ±16 they are not audio."""

Samples = npt.NDArray[np.float32]


def check(samples: object) -> Samples:
    """:func:`voxfast.audio.check_samples` for any rate."""
    if not isinstance(samples, np.ndarray):
        samples = _from_mlx(samples)
    if isinstance(samples, np.ma.MaskedArray):
        raise InvalidAudioError(
            "a masked array; say what stands in for masked samples: samples.filled(0)"
        )
    samples = np.asarray(samples)  # of any other subclass, a memory map for one
    if samples.dtype not in (np.float32, np.int16):
        raise InvalidAudioError(_dtype_message(samples))
    if samples.ndim != 1:
        raise InvalidAudioError(_shape_message(samples.shape))
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    samples = np.ascontiguousarray(samples)
    if fault := first_fault(samples):
        raise InvalidAudioError(f"sample {fault[0]} is {samples[fault[0]]}: {fault[1]}")
    return samples


def _from_mlx(samples: object) -> np.ndarray[Any, Any]:
    """Convert an ``mx.array`` of float32 or int16 to NumPy; reject everything else."""
    # Imported here: reading files must not need MLX.
    import mlx.core as mx

    if not isinstance(samples, mx.array):
        raise InvalidAudioError(
            f"audio as {type(samples).__name__}; expected a NumPy array or mx.array of float32 "
            f"or int16 (bytes: np.frombuffer(data, np.int16); lists: np.array(data, np.float32))"
        )
    if samples.dtype not in (mx.float32, mx.int16):
        raise InvalidAudioError(
            f"audio of {samples.dtype}; expected float32 (-1 to 1) or int16: convert floats "
            f"with samples.astype(mx.float32), 16-bit integers with samples.astype(mx.int16)"
        )
    try:
        return np.array(samples)
    except RuntimeError as error:
        raise InvalidAudioError(
            f"an mx.array that cannot be evaluated here ({error}); call mx.eval(samples) on the "
            f"thread that made it"
        ) from error


def first_fault(samples: Samples) -> tuple[int, str] | None:
    """The index of the first invalid sample, and the reason; None if all are valid."""
    # False for NaN, too.
    if not samples.size or -LOUDEST <= samples.min() <= samples.max() <= LOUDEST:
        return None
    index = int(np.argmax(~(np.abs(samples) <= LOUDEST)))
    if np.isfinite(samples[index]):
        return index, (
            f"float audio lies within -1 to 1, and beyond ±{LOUDEST:g} it looks like integers "
            f"stored as floats; divide by 32768 (16-bit) or 2147483648 (32-bit)"
        )
    return index, "audio must be finite; look for a division by zero or uninitialised memory"


def _dtype_message(samples: np.ndarray[Any, Any]) -> str:
    """The remedy for a dtype other than float32 and int16."""
    if samples.dtype.kind == "f":
        remedy = "convert it with samples.astype(np.float32)"
    elif samples.dtype.kind in "iu" and samples.dtype.itemsize > 1:
        bits = 8 * samples.dtype.itemsize
        remedy = (
            f"convert it with samples.astype(np.int16) if its values are 16-bit, or "
            f"(samples / 2**{bits - 1}).astype(np.float32) if they span all {bits} bits"
        )
    elif samples.dtype == np.uint8:
        remedy = (
            "convert 8-bit audio with ((samples.astype(np.float32) - 128) / 128), "
            "raw bytes with samples.view(np.int16)"
        )
    else:
        remedy = "give real audio samples"
    return f"audio of dtype {samples.dtype}; expected float32 (-1 to 1) or int16: {remedy}"


def _shape_message(shape: tuple[int, ...]) -> str:
    """The remedy for an array that is not one-dimensional."""
    if len(shape) == 2 and 1 in shape:
        remedy = "make it so with samples.reshape(-1)"
    elif len(shape) == 2 and shape[1] <= 8:
        remedy = "average the channels with samples.mean(axis=1, dtype=np.float32)"
    elif len(shape) == 2:
        remedy = "average the channels with samples.mean(axis=0, dtype=np.float32)"
    else:
        remedy = "feed one stream at a time"
    return f"audio of shape {list(shape)}; expected one dimension, mono: {remedy}"
