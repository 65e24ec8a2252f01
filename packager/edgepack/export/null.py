"""The null engine's graphs: a file that gives the shape of an answer, without weights.

It takes part in everything that does not depend on an engine, so a pipeline can be tried in a
second and without torch.  Every precision does the same arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.export import Choice
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack_runtime import tasks
from edgepack_runtime.bundle.manifest import canonical_json

REFERENCE = "null"
_FILE = "null.json"
_WIDTH = 8  # of a vector
_TOOLS = ("edgepack",)


@dataclass(frozen=True)
class Settings:
    """How to make the null form of a model."""

    task: str
    """The task, which decides the shape of the answers."""


@dataclass(frozen=True)
class NoSettings:
    """A variant has no settings: all variants are the same."""


def why_not(model_type: str, task: str, spec: VariantSpec | None = None) -> str:  # noqa: ARG001 (the Exporter protocol)
    """Return "": any model has such a form."""
    return ""


def export_stage(model: Source | Stage, task: str) -> Stage:
    """Return the stage that writes the shape."""
    return Stage("export to null", export, Settings(task), {"model": model}, _TOOLS)


def ranking_stage(inputs: Mapping[str, Source | Stage]) -> None:
    """Return no stage: there are no layers to rank."""


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:  # noqa: ARG001 (the Exporter protocol)
    """Return the stage that copies the shape."""
    needed = {"export": inputs["export"]}
    return Stage(f"convert to {spec.precision} null", make_variant, NoSettings(), needed, _TOOLS)


def graphs(folder: Path) -> dict[str, tuple[str, ...]]:  # noqa: ARG001 (the Exporter protocol)
    """Return the files of each graph."""
    return {"model": (_FILE,)}


def device_options(folder: Path, max_length: int, provider: str) -> dict[str, Any]:  # noqa: ARG001 (the Exporter protocol)
    """Return no options."""
    return {}


def export(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write how many labels a model has, and whether each token has its own answer."""
    rules = tasks.find(settings.task)
    config = json.loads((inputs["model"] / "config.json").read_text())
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    each = rules.PER_TOKEN or not rules.DECIDES
    shape = {"rank": 3 if each else 2, "size": len(labels) if rules.DECIDES else _WIDTH}
    (out / _FILE).write_bytes(canonical_json(shape))


def make_variant(settings: NoSettings, inputs: Mapping[str, Path], out: Path) -> None:  # noqa: ARG001
    """Copy the shape."""
    (out / _FILE).write_bytes((inputs["export"] / _FILE).read_bytes())
