"""The abacus's graphs: how many beads a character is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.export import Choice
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage

REFERENCE = "abacus"
_FILES = {"beads.bin": 1, "twice.bin": 2}


@dataclass(frozen=True)
class NoSettings:
    """There are none."""


def why_not(model_type: str, task: str, spec: VariantSpec | None = None) -> str:  # noqa: ARG001 (the Exporter protocol)
    """Refuse all that is not counted."""
    return "" if task == "echo-length" else f"an abacus does no {task} of {model_type}"


def export_stage(model: Source | Stage, task: str) -> Stage:  # noqa: ARG001 (the Exporter protocol)
    """Return the stage that writes the beads."""
    return Stage("string beads", export, NoSettings(), {"model": model}, ("edgepack",))


def ranking_stage(inputs: Mapping[str, Source | Stage]) -> None:
    """Return no stage."""


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:  # noqa: ARG001 (the Exporter protocol)
    """Return the stage that writes the beads once more."""
    return Stage("string beads", export, NoSettings(), {"export": inputs["export"]}, ("edgepack",))


def graphs(folder: Path) -> dict[str, tuple[str, ...]]:  # noqa: ARG001 (the Exporter protocol)
    """Return the files of each graph."""
    return {"count": ("beads.bin",), "double": ("twice.bin",)}


def device_options(folder: Path, max_length: int, provider: str) -> dict[str, Any]:  # noqa: ARG001 (the Exporter protocol)
    """Return no options."""
    return {}


def export(settings: NoSettings, inputs: Mapping[str, Path], out: Path) -> None:  # noqa: ARG001
    """Write the beads."""
    for name, factor in _FILES.items():
        (out / name).write_bytes(bytes([factor]))
