"""Write `docs/recipe.md`: every key of a recipe, with its type and default.

    python docs/generate_recipe.py

Types, defaults and limits are what `read_recipe` asks for; the meanings are the comments of
`template.toml`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from edgepack.recipe.recipe import FILE_NAME, read_recipe
from edgepack.recipe.schema import Table

PAGE = Path(__file__).with_name("recipe.md")
TEMPLATE = files("edgepack.recipe") / "template.toml"
INTRODUCTION = """# Recipe reference

<!-- Written by `python docs/generate_recipe.py`: change the comments in template.toml instead. -->

A recipe is a TOML file. Without a model, `edgepack build` reads `edgepack.toml` in this folder.
`edgepack init` writes a recipe with every key and its default. [Build](build.md) and
[Compress](compress.md) show recipes at work.

Paths are relative to the folder of the recipe. An unknown key, a wrong type or a wrong value is
an error, and all errors are reported at once.
"""
KINDS = {
    "text": "text",
    "required": "text",
    "texts": "list of texts",
    "flag": "true or false",
    "integer": "whole number",
    "optional_integer": "whole number",
    "number": "number",
    "optional_number": "number",
}
_TYPES = "|".join(("file", *dict.fromkeys(KINDS.values())))
_COMMENT = re.compile(rf"({_TYPES})(?: from [\d.]+ to [\d.]+)?: (.*)")


@dataclass(frozen=True)
class Asked:
    """What the reader of a recipe asks of one key."""

    kind: str
    optional: bool
    arguments: dict[str, Any]

    @property
    def choices(self) -> list[str]:
        """Return the values that the key takes, if it takes only some."""
        return [f'`"{name}"`' for name in self.arguments.get("choices", ()) if name]

    @property
    def type(self) -> str:
        """Return the type with its limits, or the choices."""
        if self.choices:
            return " or ".join([", ".join(self.choices[:-1]), self.choices[-1]])
        least, most = (self.arguments.get(key) for key in ("least", "most"))
        if most not in {None, float("inf")}:
            return f"{self.kind}, {least:g} to {most:g}"
        return f"{self.kind}, {least:g} or more" if least else self.kind

    @property
    def default(self) -> str:
        """Return the default as TOML has it; `none` where there is none."""
        value = self.arguments.get("default")
        if "default" not in self.arguments and not self.optional:
            return "required"
        return "none" if value is None or value in {"", ()} else f"`{json.dumps(value)}`"


def asked(template: str) -> dict[str, Asked]:
    """Return what `read_recipe` asks of each key of the template, by "table.key"."""
    found: dict[str, Asked] = {}
    with ExitStack() as stack, TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            noted = _noting(getattr(Table, name), kind, found)
            stack.enter_context(patch.object(Table, name, noted))
        path = Path(folder) / FILE_NAME
        path.write_text(re.sub(r"(?m)^# (?=\[|\w+ = )", "", template))
        read_recipe(path)
    return found


def _noting(method: Callable[..., Any], kind: str, found: dict[str, Asked]) -> Callable[..., Any]:
    """Return a method of `Table` that notes what it is asked for; the outermost call counts."""
    signature = inspect.signature(method)

    def noted(table: Table, key: str, *args: Any, **options: Any) -> Any:
        bound = signature.bind(table, key, *args, **options)
        bound.apply_defaults()
        where = f"{table._where}{key}"  # noqa: SLF001 (no one else needs to know where a table is)
        optional = method.__name__ != "required"
        found.setdefault(where, Asked(kind, optional, bound.arguments))
        return method(table, key, *args, **options)

    return noted


def comments(template: str) -> Iterator[tuple[str, str]]:
    """Yield each table, as "[table]", and each key, as "table.key", with its comment."""
    table, name, comment = "", "", ""
    for line in template.splitlines():
        if more := re.fullmatch(r" +#\s+(.*)", line):
            comment += f" {more[1]}"
            continue
        if name:
            yield name, comment
        name = ""
        if head := re.fullmatch(r"(?:# )?\[(\w+)\](?:\s+# (.*))?", line):
            table, name, comment = f"{head[1]}.", f"[{head[1]}]", head[2] or ""
        elif key := re.fullmatch(r"(?:# )?(\w+) = .*?(?:\s+# (.*))?", line):
            name, comment = f"{table}{key[1]}", key[2] or ""
    if name:
        yield name, comment


def page() -> str:
    """Return the whole page."""
    template = TEMPLATE.read_text()
    known, told = asked(template), dict(comments(template))
    lines = [INTRODUCTION, "## Top level", "", *_HEAD]
    for name, comment in told.items():
        if name.startswith("["):
            about = [_sentence(comment), ""] if comment else []
            lines += ["", f"## {name}", "", *about, *_HEAD]
            continue
        key = name.rpartition(".")[2]
        if not comment or comment.startswith("this and the rest"):  # a step is explained once
            own = told.get(f"distill.{key}") if name.startswith("draft.") else ""
            shared = not own or own.startswith("this and the rest")
            comment = told[f"finetune.{key}"] if shared else str(own)  # noqa: PLW2901
        said = _COMMENT.fullmatch(comment)
        if said is None:
            raise ValueError(f"template.toml: {name}: no type and meaning in {comment!r}")
        meaning = said[2].partition("; ")[2] if known[name].choices else said[2]
        kind = known[name].type if said[1] != "file" else "file"
        lines.append(f"| `{key}` | {kind} | {known[name].default} | {_sentence(meaning)} |")
    return "\n".join(lines) + "\n"


_HEAD = ("| key | type | default | meaning |", "|---|---|---|---|")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "." * bool(words)


if __name__ == "__main__":
    PAGE.write_text(page())
