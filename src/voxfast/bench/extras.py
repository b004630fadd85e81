"""The modules that only the benchmark needs."""

import importlib
from types import ModuleType

__all__ = ["need"]


def need(name: str) -> ModuleType:
    """Import a module of the extra ``bench``; raises ImportError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'the benchmark needs {name.partition(".")[0]}: pip install "voxfast[bench]" ({error})'
        ) from error
