"""Functions are read without scrolling, files have one subject, and the formatter is obeyed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("packager", "runtime") for path in (ROOT / folder).rglob("*.py")
)
SKIP = "# fmt: " + "skip"


_CODE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _lengths(*kinds: type[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield the lines of each function or class, docstrings left out, and where it is."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds) and isinstance(node, _CODE):
                inside = [part for part in ast.walk(node) if isinstance(part, _CODE)]
                said = [ast.get_docstring(part, clean=False) or "" for part in inside]
                docs = sum(len(text.splitlines()) for text in said)
                lines = (node.end_lineno or 0) - node.lineno + 1
                yield lines - docs, f"{path.relative_to(ROOT)}: {node.name}"


def test_functions_fit_a_screen() -> None:
    """None has over 50 lines, and nine of ten have 20 or less."""
    lengths = sorted(_lengths(ast.FunctionDef, ast.AsyncFunctionDef))
    assert lengths[-1][0] <= 50, lengths[-3:]
    assert lengths[len(lengths) * 9 // 10][0] <= 20


def test_classes_and_files_have_one_subject() -> None:
    """No class has 150 lines, no file more than 300."""
    assert max(_lengths(ast.ClassDef))[0] < 150
    long = [str(path) for path in SOURCES if len(path.read_text().splitlines()) > 300]
    assert long == []


def test_the_formatter_is_obeyed() -> None:
    """It is switched off in fewer than forty places."""
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    assert sum(path.read_text().count(SKIP) for path in files) < 40
