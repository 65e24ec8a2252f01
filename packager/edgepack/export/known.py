"""What the exporters support, as a table, because asking Optimum takes seconds of imports.

`known.json` is made by `python -m edgepack.export.known`; a test compares it with Optimum.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgepack.tasks import find, optimum_tasks
from edgepack_runtime.inputs.text import INPUTS

MADE = frozenset((*INPUTS, "pixel_values", "input_values"))
"""The inputs of graphs that the runtime makes."""
_FILE = Path(__file__).with_name("known.json")
# Families that Optimum lists but whose export it cannot finish (optimum-onnx 0.1.0).
_FAULTY = {
    "longformer": "its attention in windows cannot be exported for texts of any length",
    "nystromformer": "its landmarks cannot be exported for texts of any length",
}


@dataclass(frozen=True)
class Family:
    """What the exporters support for a model type."""

    onnx: tuple[str, ...] = ()
    """The tasks that can be exported to ONNX."""
    openvino: tuple[str, ...] = ()
    """The tasks that can be exported to OpenVINO."""
    inputs: tuple[str, ...] = ()
    """The inputs of the ONNX graph; empty without an ONNX form."""
    fast: bool = True
    """Whether transformers has a fast tokenizer for it."""


@cache
def known_families() -> dict[str, Family]:
    """Return the families that read texts, images or sounds, by model type."""
    rows: dict[str, dict[str, Any]] = json.loads(_FILE.read_text())
    return {
        name: Family(
            tuple(row["onnx"]), tuple(row["openvino"]), tuple(row["inputs"]), fast=row["fast"]
        )
        for name, row in rows.items()
    }


def why_not_onnx(model_type: str, task: str) -> str:
    """Say why the float reference of a family cannot be exported; empty if it can."""
    if reason := _FAULTY.get(model_type):
        return f"{model_type} cannot be exported: {reason}"
    family = known_families().get(model_type)
    if family is None or not family.onnx:
        return f"Optimum exports no model of type {model_type!r} to ONNX"
    if (name := find(task).OPTIMUM) not in family.onnx:
        return f"Optimum exports {model_type} for {', '.join(family.onnx)} only, not for {name}"
    if unknown := [name for name in family.inputs if name not in MADE]:
        return f"{model_type} reads {', '.join(unknown)}, which the runtime does not make yet"
    return ""


def why_not_openvino(model_type: str, task: str) -> str:
    """Say why a family has no OpenVINO form; empty if it has one."""
    family = known_families().get(model_type, Family())
    if find(task).OPTIMUM in family.openvino:
        return ""
    return f"Optimum exports no {model_type} for {find(task).OPTIMUM} to OpenVINO"


def survey() -> dict[str, dict[str, Any]]:
    """Ask Optimum and transformers for what `known.json` should hold."""
    from importlib import import_module

    from optimum.exporters.tasks import TasksManager
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    from edgepack.export.families import register_families

    register_families()
    for exporter in ("onnx", "openvino"):
        import_module(f"optimum.exporters.{exporter}.model_configs")
    found = {}
    for name, supported in sorted(TasksManager._SUPPORTED_MODEL_TYPE.items()):  # noqa: SLF001
        tasks = {
            kind: [task for task in optimum_tasks() if task in supported.get(kind, {})]
            for kind in ("onnx", "openvino")
        }
        inputs = _inputs(name, tasks["onnx"])
        slow, fast = TOKENIZER_MAPPING_NAMES.get(name) or (None, None)
        if any(tasks.values()) and (not inputs or MADE & set(inputs)):
            can = bool(fast) or slow in SLOW_TO_FAST_CONVERTERS
            found[name] = {**tasks, "inputs": inputs, "fast": can}
    return found


def _inputs(name: str, tasks: list[str]) -> list[str]:
    """Return the inputs of a family's ONNX graph; none if Optimum cannot say."""
    from optimum.exporters.tasks import TasksManager
    from transformers import AutoConfig

    if not tasks:
        return []
    make = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=name, task=tasks[0], library_name="transformers"
    )
    try:
        return list(make(AutoConfig.for_model(name)).inputs)
    except (ValueError, AttributeError):  # part of another model, without its own config
        return []


if __name__ == "__main__":
    _FILE.write_text(json.dumps(survey(), indent=1) + "\n")
