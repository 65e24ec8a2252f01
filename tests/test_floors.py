"""The house: a folder imports from the folders below it, and nothing imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import edgepack
import edgepack_runtime

# From the top floor down.  A module that lies in no folder is a folder of its own.
FLOORS = {
    "edgepack": (
        "__main__",
        "cli",
        "report",
        "build",
        "channel",
        "judge",
        "export",
        "bundle",
        "recipe",
        "compress",
        "model",
        "tasks",
        "data",
        "stages",
        "host",
        "__init__",
    ),
    "edgepack_runtime": (
        "__main__",
        "cli",
        "update",
        "doctor",
        "tune",
        "model",
        "tasks",
        "generation",
        "inputs",
        "fit",
        "device",
        "engines",
        "store",
        "bundle",
        "process",
        "paths",
        "words",
        "numeric",
        "gc_pause",
        "errors",
        "__init__",
    ),
}
ROOTS = {
    module.__name__: Path(str(module.__file__)).parent for module in (edgepack, edgepack_runtime)
}


def modules(package: str) -> dict[str, Path]:
    """Return {dotted name: file} of a package."""
    root = ROOTS[package]
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that one imports, anywhere in it, for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for item in node.names:
                full = f"{node.module}.{item.name}"
                yield full if full in known else str(node.module)


def floor(name: str) -> str:
    """Return the folder of a module, or the module's own name where it lies in none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_has_its_floor(package: str) -> None:
    """The list names what is there, and nothing else."""
    assert {floor(name) for name in modules(package)} == set(FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_no_folder_imports_one_above(package: str) -> None:
    """Imports run down, those inside functions and those for types too."""
    order = {name: level for level, name in enumerate(FLOORS[package])}
    known = modules(package)
    upward = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imports(path, known)
        if order[floor(other)] < order[floor(name)] and floor(name) != "__init__"
    ]
    assert upward == []


@pytest.mark.parametrize("package", FLOORS)
def test_nothing_imports_in_a_circle(package: str) -> None:
    """No module reaches itself through what it imports."""
    known = modules(package)
    graph = {
        name: set(imports(path, known)) - {name, package}
        for name, path in known.items()
        if name != package
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))
