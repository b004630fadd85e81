"""The command ``voxfast``; :mod:`voxfast.cli.command` is all of it but the way in."""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        # Imported here: an interrupt may come while NumPy and MLX are loaded, too.
        from voxfast.cli.command import run
    except KeyboardInterrupt:
        return 130
    return run(argv)
