"""The version of voxfast, without loading anything else of it."""

from importlib import metadata


def version() -> str:
    """The version that is installed, or "unknown" when run from a source tree."""
    try:
        return metadata.version("voxfast")
    except metadata.PackageNotFoundError:
        return "unknown"
