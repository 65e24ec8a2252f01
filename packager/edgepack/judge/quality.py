"""Stages that measure the quality of torch forms and of variants on the evaluation data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.data.rows import Columns, read_examples
from edgepack.export import open_as_device
from edgepack.model.torch_model import open_torch
from edgepack.stages.cache import Stage
from edgepack.tasks import TORCH_BATCH, Quality, evaluate
from edgepack_runtime.bundle.manifest import canonical_json

TOOLS = ("edgepack", "torch", "transformers", "onnxruntime", "openvino", "scikit-learn", "seqeval")
_DIGITS = 6


@dataclass(frozen=True)
class TorchSettings:
    """How to open a torch form and read the evaluation data."""

    task: str
    columns: Columns = Columns()
    max_length: int = 0


@dataclass(frozen=True)
class JudgeSettings:
    """How to open a variant and read the evaluation data."""

    engine: str
    """The engine of the variant."""
    precision: str
    """The precision of the variant."""
    columns: Columns = Columns()
    """The columns of the evaluation data."""


def judge_torch(settings: TorchSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `quality.json` for a torch form on the evaluation data."""
    model = open_torch(inputs["model"], settings.task, settings.max_length)
    examples = read_examples(str(inputs["evaluation"]), settings.task, settings.columns)
    _write(evaluate(model, examples, batch_size=TORCH_BATCH), out)


def judge(settings: JudgeSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `quality.json` for a variant on the evaluation data, text by text as on a device."""
    variant = inputs["variant"]
    model = open_as_device(inputs["tokenizer"], variant, settings.engine, settings.precision)
    examples = read_examples(str(inputs["evaluation"]), model.task.name, settings.columns)
    _write(evaluate(model, examples), out)


def _write(quality: Quality, out: Path) -> None:
    figures = {name: round(value, _DIGITS) for name, value in quality.figures.items()}
    value = {"main": quality.main, "figures": figures, "rows": quality.rows}
    (out / "quality.json").write_bytes(canonical_json(value))


def quality_of(stage: Stage | None, folders: Mapping[str, Path]) -> Quality | None:
    """Return the result of a judging stage; None without a stage."""
    if stage is None:
        return None
    return Quality(**json.loads((folders[stage.key] / "quality.json").read_text()))
