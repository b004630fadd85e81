"""Loads the extension, and refuses to with a useful message when it cannot work.

The extension shares C++ classes with MLX, so it is valid for exactly the MLX it was
compiled against. nanobind refuses foreign arrays one call at a time, with a message about
"incompatible function arguments"; checking here turns that into one clear ImportError.
"""

import sys

import mlx.core as mx

MLX_VERSION = "0.32.4"
_FOUND: str = mx.__version__  # type: ignore[attr-defined]  # missing in MLX's stubs
_PACKAGE = "mlx[cpu]" if sys.platform == "linux" else "mlx"
_GET_MLX = f'python -m pip install "{_PACKAGE}=={MLX_VERSION}"'
_GET_VOXFAST = "python -m pip install --force-reinstall --no-deps --no-cache-dir voxfast"


def _fail(reason: str, remedy: str) -> ImportError:
    return ImportError(
        f"voxfast needs MLX {MLX_VERSION}, the release it was compiled against, and found "
        f"MLX {_FOUND}: {reason}. To mend it: {remedy}"
    )


def _check_pair() -> None:
    """Raise ImportError unless this MLX is the one the extension was compiled against."""
    if _FOUND.split("+")[0] != MLX_VERSION:
        raise _fail("another version of MLX is installed", _GET_MLX)
    try:
        from voxfast import _ext
    except ImportError as error:
        raise _fail(f"the extension does not load ({error})", _GET_VOXFAST) from error
    if _ext.built_for_mlx != MLX_VERSION:
        raise _fail(f"the extension was compiled for MLX {_ext.built_for_mlx}", _GET_VOXFAST)
    try:  # settings in the environment; wrong ones are not to be found in the middle of a stream
        _ext.isa()
        _ext.num_threads()
    except RuntimeError as error:
        raise ImportError(str(error)) from None
    try:
        frames = _ext.log_mel(mx.zeros((400,)), stream=mx.Device(mx.cpu))
    except TypeError as error:
        raise _fail(
            f"the extension does not accept MLX's arrays ({error})", _GET_VOXFAST
        ) from error
    if not isinstance(frames, mx.array) or frames.shape != (1, 128):
        raise _fail("an array did not come back from the extension as it should", _GET_VOXFAST)


_check_pair()

from voxfast import _ext  # noqa: E402

__all__ = ["MLX_VERSION", "_ext"]
