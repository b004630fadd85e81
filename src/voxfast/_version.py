"""The version of voxfast, without loading anything else of it."""

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """The version that is installed, or "unknown" when run from a source tree."""
    try:
        return metadata.version("voxfast")
    except metadata.PackageNotFoundError:
        return "unknown"
