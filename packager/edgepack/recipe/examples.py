"""The output of `edgepack init`: a recipe with every key explained, or a folder of `examples/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgepack_runtime.errors import InputError
from edgepack_runtime.words import suggest

_RECIPE = "edgepack.toml"
_MODEL = '"org/name"'
_LEFT_OUT = ("dist", "data", "__pycache__", "*.epk")


def list_examples() -> dict[str, str]:
    """Return {name: first line of its README} for the examples that hold a recipe."""
    folders = sorted(path.parent for path in _root().glob(f"*/{_RECIPE}"))
    return {folder.name: _summary(folder) for folder in folders}


def copy_example(name: str, folder: Path) -> Path:
    """Copy an example to `folder`, which must not exist or be empty.

    Raises:
        InputError: there is no such example, or the folder is not empty.

    """
    known = list_examples()
    if name not in known:
        raise InputError(f"no example {name!r}; {suggest(name, known)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name another folder")
    try:
        shutil.copytree(
            _root() / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)
        )
    except OSError as exc:
        raise InputError(f"cannot write {folder}: {exc}") from exc
    return folder


def write_recipe(folder: Path, model: str = "") -> Path:
    """Write a recipe with every key explained to `folder`; return its path.

    Args:
        folder: the folder, made if it is not there; it must not hold a recipe.
        model: the model to build; empty for a name to fill in.

    Raises:
        InputError: there is a recipe already, or the folder cannot be written.

    """
    path = folder / _RECIPE
    if path.exists():
        raise InputError(f"{path} exists; name another folder")
    text = (Path(__file__).parent / "template.toml").read_text(encoding="utf-8")
    if model and Path(model).is_dir():  # the recipe would look for it in its own folder
        model = str(Path(model).resolve())
    if model:
        text = text.replace(_MODEL, json.dumps(model, ensure_ascii=False), 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InputError(f"cannot write {path}: {exc.strerror}") from exc
    return path


def _summary(folder: Path) -> str:
    lines = (folder / "README.md").read_text().splitlines()
    return lines[0].lstrip("# ")


def _root() -> Path:
    here = Path(__file__).resolve()
    shipped = here.parents[1] / "example_recipes"
    return shipped if shipped.is_dir() else here.parents[3] / "examples"
