"""Modules import what stands below them: no circles; only the registry knows families."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import voxfast

PACKAGE = Path(voxfast.__file__).parent
FAMILIES = sorted(path.parent.name for path in PACKAGE.glob("models/*/__init__.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path, *, lazy: bool) -> Iterator[str]:
    """Modules of the package that a module imports; within functions, too, if ``lazy``."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from submodules or {node.module}


def test_there_is_no_circle_of_imports() -> None:
    graph = {name: set(imported(path, lazy=False)) for name, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("voxfast.ops") < order.index("voxfast.models.voxtral.stream")


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("voxfast.online")])
def test_online_knows_no_family(name: str) -> None:
    assert not [other for other in imported(MODULES[name], lazy=True) if ".models" in other]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_knows_no_other(family: str) -> None:
    others = {f"voxfast.models.{other}" for other in FAMILIES if other != family}
    for name, path in MODULES.items():
        if name.startswith(f"voxfast.models.{family}"):
            found = [m for m in imported(path, lazy=True) if m.startswith(tuple(others))]
            assert not found, name
            assert "voxfast.models.registry" not in imported(path, lazy=True), name


def test_commands_start_without_mlx() -> None:
    """`voxfast doctor` has to start where MLX does not, and `--help` should not wait for it."""
    heavy = ("mlx.core", "av", "soxr", "huggingface_hub", "mistral_common")
    program = (
        "import sys; import voxfast.cli.command, voxfast.hub\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
