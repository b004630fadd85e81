"""Loads the extension, or raises an ImportError with the remedy.

The extension shares C++ classes with MLX, so it is valid only for the MLX it was compiled
against. Otherwise nanobind would reject arrays call by call, with a message about
"incompatible function arguments"; the check here raises one clear ImportError.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx

MLX_VERSION = "0.32.4"
_FOUND: str = mx.__version__  # type: ignore[attr-defined]  # missing in MLX's stubs
_PACKAGE = "mlx[cpu]" if sys.platform == "linux" else "mlx"
_GET_MLX = f'python -m pip install "{_PACKAGE}=={MLX_VERSION}"'
_GET_VOXFAST = "python -m pip install --force-reinstall --no-deps --no-cache-dir voxfast"
_BUILD = "python -m pip install voxfast; from a checkout: python -m pip install ."


def _fail(reason: str, remedy: str) -> ImportError:
    return ImportError(f"{reason}. To mend it: {remedy}")


def _check_pair() -> None:
    """Raise ImportError unless this MLX is the one the extension was compiled against."""
    if _FOUND.split("+")[0] != MLX_VERSION:
        raise _fail(
            f"voxfast needs MLX {MLX_VERSION}, the release it was compiled against, and found "
            f"MLX {_FOUND}",
            _GET_MLX,
        )
    try:
        from voxfast import _ext
    except ImportError as error:
        if find_spec("voxfast._ext") is None:  # a checkout's sources, or another Python's build
            tag = sys.implementation.cache_tag
            raise _fail(
                f"{Path(__file__).parent} has no native extension for this Python ({tag}): "
                "voxfast was not installed, only its sources are there",
                _BUILD,
            ) from None
        raise _fail(
            f"voxfast's extension does not load with MLX {_FOUND} ({error})", _GET_VOXFAST
        ) from error
    if _ext.built_for_mlx != MLX_VERSION:
        raise _fail(
            f"voxfast needs MLX {MLX_VERSION}, but its extension was compiled for MLX "
            f"{_ext.built_for_mlx}",
            _GET_VOXFAST,
        )
    try:  # invalid settings in the environment must not fail in the middle of a stream
        _ext.isa()
        _ext.num_threads()
    except RuntimeError as error:
        raise ImportError(str(error)) from None
    try:
        frames = _ext.log_mel(mx.zeros((400,)), stream=mx.Device(mx.cpu))
    except TypeError as error:
        raise _fail(
            f"voxfast's extension does not accept the arrays of MLX {_FOUND} ({error})",
            _GET_VOXFAST,
        ) from error
    if not isinstance(frames, mx.array) or frames.shape != (1, 128):
        raise _fail(
            f"voxfast's extension gave no array of MLX {_FOUND} back: {type(frames).__name__}",
            _GET_VOXFAST,
        )


_check_pair()

from voxfast import _ext  # noqa: E402

__all__ = ["MLX_VERSION", "_ext"]
