"""The code that a function runs: the modules of this project that it can reach, and their digest.

The imports of a module are read, not run, including those inside functions, but not those under
`if TYPE_CHECKING`.  A module that imports by name can reach every file of its folder.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PROJECT = ("edgepack", "edgepack_runtime")


@cache
def code_digest(module: str) -> str:
    """Hash the sources of a module and of everything it imports from this project.

    Args:
        module: its full name; for a module of another project, only that module is hashed.

    """
    wanted, reached = [module], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached.add(name)
            wanted += _imports(name)
    lines = (f"{name} {_digest(name)}\n" for name in sorted(reached))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def _digest(module: str) -> str:
    path = _path(module)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


@cache
def _path(module: str) -> Path | None:
    """Return the file of a module; None if there is no such module."""
    if module == "__main__":
        return None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # its parent is a module with such a name, not a package
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of this project that a module imports, with their packages."""
    path = _path(module)
    if path is None or path.suffix != ".py":
        return frozenset()
    found = set(_named(ast.parse(path.read_bytes())))
    if "import_module" in path.read_text():
        found |= {f"{module}.{file.stem}" for file in path.parent.glob("[a-z]*.py")}
    known = {name for name in found if name.partition(".")[0] in PROJECT and _path(name)}
    parts = [name.split(".") for name in known]
    return frozenset(".".join(part[:count]) for part in parts for count in range(1, len(part) + 1))


def _named(node: ast.AST) -> Iterator[str]:
    """Yield the names in the imports below a node that may be modules."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (item.name for item in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{item.name}" for item in child.names)
        elif not _types_only(child):
            yield from _named(child)


def _types_only(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
