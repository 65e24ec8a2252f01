"""What to build, as a person writes it: `edgepack.toml`, or the options of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepack.schema import Table, check, read_toml

FILE_NAME = "edgepack.toml"
TASKS = ("feature-extraction", "sentence-similarity", "text-classification", "token-classification")
PRECISIONS = ("target", "float32")
LAYOUTS = ("epk", "folder")


@dataclass(frozen=True)
class Recipe:
    """A model and what is wanted of it.

    source: a hub id, a folder, or `package:NAME/path`.
    revision: a hub revision; pin a commit to build the same bundle for ever.
    task: one of `TASKS`; empty to detect it from the model.
    calibration: a text, TSV, CSV or JSONL file of typical inputs; None for generated ones.
    samples: how many of them static quantization looks at.
    precision: `target` for what each target asks for, `float32` for no quantization.
    """

    source: str
    revision: str = ""
    task: str = ""
    name: str = ""
    version: str = "0.1.0"
    release: int = 1
    max_length: int = 0
    calibration: Path | None = None
    column: str = "text"
    samples: int = 64
    targets: tuple[str, ...] = ()
    precision: str = "target"
    layout: str = "epk"


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to its folder.

    Raises:
        InputError: every unknown key, wrong type and wrong value, in one message.

    """
    faults: list[str] = []
    root = Table(read_toml(path), "", faults)
    model, data, build = root.table("model"), root.table("calibration"), root.table("build")
    source, file = model.required("source"), data.text("file")
    recipe = Recipe(
        source=_resolve(path, source),
        revision=model.text("revision"),
        task=model.text("task", choices=("", *TASKS)),
        name=model.text("name"),
        version=model.text("version", "0.1.0"),
        release=model.integer("release", 1, least=1),
        max_length=model.integer("max_length", 0),
        calibration=path.parent / file if file else None,
        column=data.text("column", "text"),
        samples=data.integer("samples", 64, least=1),
        targets=build.texts("targets"),
        precision=build.text("precision", "target", choices=PRECISIONS),
        layout=build.text("layout", "epk", choices=LAYOUTS),
    )
    for table in (root, model, data, build):
        table.done()
    check(path, faults)
    return recipe


def _resolve(path: Path, source: str) -> str:
    """Make a source that is a folder beside the recipe absolute; leave the others."""
    folder = path.parent / source
    return str(folder.resolve()) if source and folder.is_dir() else source
