"""Detects the fork of a process that had loaded a model.

MLX reads weights and evaluates on threads of its own. A forked child does not have these
threads, so it would wait for them forever. (A GPU context does not survive a fork at all.)
Importing voxfast, and building arrays without evaluating them, starts no such thread.
"""

import os

from voxfast.errors import ForkedProcessError

__all__ = ["check_process", "is_forked", "note_use"]

_in_use = _is_forked = False


def note_use() -> None:
    """Note that MLX's threads are about to start in this process."""
    global _in_use
    _in_use = True


def is_forked() -> bool:
    """Whether the parent had loaded a model before the fork, so that none can run here."""
    return _is_forked


def check_process() -> None:
    """Raise ForkedProcessError if models cannot run here."""
    if _is_forked:
        raise ForkedProcessError(
            "this process was forked from one that had loaded a model, and MLX does not survive "
            "a fork; start it with the 'spawn' method, for instance "
            "multiprocessing.get_context('spawn'), or fork before the first model is loaded"
        )


def _after_fork() -> None:
    global _is_forked
    _is_forked = _in_use


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
