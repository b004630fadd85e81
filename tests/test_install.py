"""An installation that cannot work says so, in words; an old processor is slower, not wrong."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

import voxfast
from voxfast._native import MLX_VERSION, _ext

ISAS = ", ".join(_ext.available_isas())


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
    code = "import mlx.core as mx; mx.__version__ = '0.31.0'; import voxfast; voxfast.load"
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
            f"does not accept the arrays of MLX {MLX_VERSION} (log_mel(): incompatible",
        ),
        ("return None", f"gave no array of MLX {MLX_VERSION} back: NoneType"),
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
voxfast.load
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
voxfast.load
"""
    assert "its extension was compiled for MLX 0.30.0" in last_line(run(code))


def sources(folder: Path, extension: str | None) -> str:
    """A copy of the package without its extension, or with such bytes in its place."""
    package = folder / "voxfast"
    here = Path(voxfast.__file__).parent
    shutil.copytree(here, package, ignore=shutil.ignore_patterns("_ext*", "__pycache__"))
    if extension is not None:
        (package / Path(_ext.__file__).name).write_text(extension)
    return f"import sys; sys.path.insert(0, {str(folder)!r}); import voxfast; voxfast.load"


def test_sources_without_an_extension_are_named_with_the_remedy(tmp_path: Path) -> None:
    line = last_line(run(sources(tmp_path, None)))
    assert line.startswith(f"ImportError: {tmp_path / 'voxfast'} has no native extension for this")
    assert "found MLX" not in line  # which is as it should be
    assert line.endswith("pip install .")


def test_an_extension_that_does_not_load_is_named_with_the_reason(tmp_path: Path) -> None:
    line = last_line(run(sources(tmp_path, "no library")))
    assert f"extension does not load with MLX {MLX_VERSION} ({tmp_path}" in line
    assert "--force-reinstall" in line


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VOXFAST_ISA", "sse9", f"VOXFAST_ISA=sse9 is not available here; choose one of: {ISAS}"),
        ("VOXFAST_NUM_THREADS", "many", "VOXFAST_NUM_THREADS=many is not a number of threads"),
        ("VOXFAST_NUM_THREADS", "0", "VOXFAST_NUM_THREADS=0 is not a number of threads"),
    ],
)
def test_settings_that_cannot_be_are_named_before_a_model_is_loaded(
    variable: str, value: str, message: str
) -> None:
    line = last_line(run("from voxfast import load", **{variable: value}))
    assert line.startswith(f"ImportError: [voxfast] {message}")


@pytest.mark.parametrize("isa", ["baseline", _ext.available_isas()[0]])
def test_the_narrowest_instruction_set_is_the_one_of_the_architecture(isa: str) -> None:
    """``baseline`` is its name of before, for every architecture."""
    done = run("from voxfast._native import _ext; print(_ext.isa())", VOXFAST_ISA=isa)
    names = {"x86_64": "sse2", "AMD64": "sse2", "arm64": "neon", "aarch64": "neon"}
    assert done.stdout.strip() == names.get(platform.machine(), "generic"), done.stderr


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
