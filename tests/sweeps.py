"""Quick checks of kernels in processes of their own: settings are read once in a process."""

import os
import subprocess
import sys
from pathlib import Path


def run_sweep(module: str, **settings: str) -> tuple[str, str]:
    """Call ``sweep()`` of a module beside this one, on the CPU.

    Args:
        module: its name.
        **settings: environment variables.

    Returns:
        the instruction set and the number of threads that were used.
    """
    code = (
        f"import mlx.core as mx; mx.set_default_device(mx.cpu); import {module};"
        f"from voxfast._native import _ext; {module}.sweep();"
        "print(_ext.isa(), _ext.num_threads())"
    )
    path = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    isa, threads = done.stdout.split()
    return isa, threads
