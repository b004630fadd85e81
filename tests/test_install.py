"""An installation that cannot work says so, in words; an old processor is slower, not wrong."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest

from voxfast._native import MLX_VERSION, _ext


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_another_mlx_is_named_with_the_remedy() -> None:
    code = "import mlx.core as mx; mx.__version__ = '0.31.0'; import voxfast"
    line = last_line(run(code))
    assert line.startswith(f"ImportError: voxfast needs MLX {MLX_VERSION}")
    assert "found MLX 0.31.0" in line
    assert f"=={MLX_VERSION}" in line


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        # What nanobind says of arrays that are not of its own pairing.
        (
            "raise TypeError('log_mel(): incompatible function arguments')",
            "does not accept MLX's arrays (log_mel(): incompatible",
        ),
        ("return None", "did not come back"),
    ],
)
def test_a_wrong_nanobind_pairing_is_named_with_the_remedy(replaced: str, reason: str) -> None:
    code = f"""
import sys, types
def log_mel(*arguments, **options):
    {replaced}
extension = types.SimpleNamespace(
    built_for_mlx={MLX_VERSION!r}, log_mel=log_mel, isa=lambda: "x", num_threads=lambda: 1
)
sys.modules["voxfast._ext"] = extension
package = __import__("importlib.util").util.find_spec("voxfast")
import builtins
original = builtins.__import__
def importing(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "voxfast" and fromlist and "_ext" in fromlist:
        return types.SimpleNamespace(_ext=extension)
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = importing
import voxfast
"""
    line = last_line(run(code))
    assert reason in line
    assert "--force-reinstall" in line


def test_an_extension_of_another_release_is_named() -> None:
    code = """
import sys, types, builtins
original = builtins.__import__
def importing(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "voxfast" and fromlist and "_ext" in fromlist:
        return types.SimpleNamespace(_ext=types.SimpleNamespace(built_for_mlx="0.30.0"))
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = importing
import voxfast
"""
    assert "the extension was compiled for MLX 0.30.0" in last_line(run(code))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VOXFAST_ISA", "sse9", "VOXFAST_ISA=sse9 is not available here; choose one of: baseline"),
        ("VOXFAST_NUM_THREADS", "many", "VOXFAST_NUM_THREADS=many is no number of threads"),
        ("VOXFAST_NUM_THREADS", "0", "VOXFAST_NUM_THREADS=0 is no number of threads"),
    ],
)
def test_settings_that_cannot_be_are_named_on_import(
    variable: str, value: str, message: str
) -> None:
    done = run("import voxfast", **{variable: value})
    assert message in last_line(done)


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_an_old_processor_gives_the_same_words(isa: str) -> None:
    code = """
import voxfast
from voxfast._native import _ext
from evaluation import load_eval_items
item = next(item for item in load_eval_items() if item.name == "eval_18")
print(_ext.isa(), voxfast.transcribe(item.audio).text == item.transcript)
"""
    done = run(code, VOXFAST_ISA=isa)
    assert done.stdout == f"{isa} True\n", done.stderr


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_in_words() -> None:
    code = """
import mlx.core as mx
from voxfast.ops import log_mel
try:
    mx.eval(log_mel(mx.zeros(400), stream=mx.gpu))
except (ValueError, RuntimeError) as error:
    print(str(error).lower())
"""
    done = run(code)
    assert "gpu" in done.stdout, done.stderr
