"""The engines of the build host: one module each, of the same name as in the runtime.

Each has `export` (a stage that makes the float32 form through Optimum), `variant_stage`
(the stage that makes what a `VariantSpec` asks for) and `FILES` (what a device loads).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from edgepack.cache import Source, Stage
from edgepack.target import VariantSpec


class Exporter(Protocol):
    """What an exporter module provides."""

    FILES: tuple[str, ...]

    def export_stage(self, model: Source, task: str) -> Stage:
        """Return the stage that makes the float32 form."""

    def variant_stage(self, spec: VariantSpec, inputs: Mapping[str, Stage | Source]) -> Stage:
        """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""

    def device_options(self, folder: Path, max_length: int) -> dict[str, Any]:
        """Return the options with which a device should load the files in `folder`."""


def find(engine: str) -> Exporter:
    """Return the exporter of an engine."""
    return cast("Exporter", import_module(f"{__name__}.{engine}"))


def nncf_parameters(*, tied: bool) -> Any:
    """Return NNCF's settings: without SmoothQuant for tied weights.

    SmoothQuant would scale each use of a weight its own way, and so store it once a layer.
    """
    import nncf

    if not tied:
        return None
    off = nncf.AdvancedSmoothQuantParameters(matmul=-1)
    return nncf.AdvancedQuantizationParameters(smooth_quant_alphas=off)


def optimum_task(task: str) -> str:
    """Return Optimum's name for a task of the runtime."""
    return "feature-extraction" if task == "sentence-similarity" else task
