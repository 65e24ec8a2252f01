"""The engines of the build host, one module each, with the same names as in the runtime.

Each has `export` (a stage that makes the float32 form with Optimum), `variant_stage` (the stage
that makes what a `VariantSpec` asks for) and `graphs` (what a device loads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from edgepack.export.lora import files as adapters_of
from edgepack.model.opened import Candidate, open_model, read_task
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack_runtime.model.model import Model

CPU = "CPU"
FOUR_BITS = "four bits are for models that write text; leave precision at 'target'"


@dataclass(frozen=True)
class Choice:
    """How to quantize, in addition to what the target says."""

    kept: tuple[str, ...] = ()
    """Layers (torch module names) to leave in float."""
    trials: int = 1
    """How many settings to try; see `search`."""


class Exporter(Protocol):
    """What an exporter module provides."""

    REFERENCE: str
    """The engine whose float32 graph its variants are compared with."""

    def why_not(self, model_type: str, task: str, spec: VariantSpec | None = None) -> str:
        """Say why a family has no form for this engine, or for a variant; empty if it has one."""

    def export_stage(self, model: Source | Stage, task: str) -> Stage:
        """Return the stage that makes the float32 form."""

    def variant_stage(
        self, spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice
    ) -> Stage:
        """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""

    def ranking_stage(self, inputs: Mapping[str, Stage | Source]) -> Stage | None:
        """Return the stage that ranks layers by what int8 costs them; see `sensitivity`.

        None if there are no layers.  `inputs`: export, tokenizer, texts.
        """

    def graphs(self, folder: Path) -> dict[str, tuple[str, ...]]:
        """Return {graph: its files} of an export or a variant, as paths relative to `folder`."""

    def device_options(self, folder: Path, max_length: int, provider: str) -> dict[str, Any]:
        """Return the options for `provider` to load the files in `folder`."""


def find(engine: str) -> Exporter:
    """Return the exporter of an engine."""
    return cast("Exporter", import_module(f"{__name__}.{engine}"))


def open_as_device(
    tokenizer: Path, folder: Path, engine: str, precision: str, *, threads: int = 0
) -> Model:
    """Open a variant on this host with the options that a device will use."""
    text = read_task(tokenizer).text
    longest, exporter = text.max_length if text else 0, find(engine)
    options = exporter.device_options(folder, longest, CPU)
    spec = Candidate(engine, precision, exporter.graphs(folder), options, adapters_of(folder))
    return open_model(tokenizer, folder, spec, threads=threads)


def open_reference(tokenizer: Path, folder: Path, engine: str, *, threads: int = 0) -> Model:
    """Open the float32 graph that an engine's variants are compared with."""
    spec = Candidate(engine, "float32", find(engine).graphs(folder))
    return open_model(tokenizer, folder, spec, threads=threads)
