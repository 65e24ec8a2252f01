"""Stages that record the reference outputs and measure each variant against them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.export import open_as_device, open_reference
from edgepack.model.opened import are_generated, golden_files, read_items
from edgepack_runtime import tasks
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks._likeness import decisions

TOOLS = ("edgepack", "onnxruntime", "openvino", "numpy")
FOLDER = "golden"
"""Where golden inputs lie that JSON cannot hold."""
_DIGITS = 6
# How much further a device may stray than the build host: other processors round and order their
# sums differently (facts: the same int8 file loses up to a point elsewhere).
_COSINE_MARGIN = 0.02
_AGREEMENT_MARGIN = 0.15


@dataclass(frozen=True)
class GoldenSettings:
    """How to record the reference outputs."""

    engine: str
    """Runs the reference, a float32 graph on the CPU."""


@dataclass(frozen=True)
class AssessSettings:
    """How to compare a variant with the reference."""

    engine: str
    """Runs the variant."""
    precision: str
    """The precision of the variant, as in a target file."""


def make_golden(settings: GoldenSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `golden.json` and `reference.npz` from the float model.

    The first holds the golden texts and outputs, and goes to the device.  The second holds the
    outputs for the evaluation texts.
    """
    import numpy as np

    model = open_reference(inputs["tokenizer"], inputs["export"], settings.engine)
    outputs = [_plain(output) for output in model.outputs(read_items(inputs["texts"], "golden"))]
    listed = []
    for item, path in golden_files(inputs["texts"]):
        if path is not None:
            (out / FOLDER).mkdir(exist_ok=True)
            (out / FOLDER / path.name).write_bytes(path.read_bytes())
        listed.append(item if path is None else {"file": f"{FOLDER}/{path.name}"})
    (out / "golden.json").write_bytes(canonical_json({"inputs": listed, "outputs": outputs}))
    wanted = model.outputs(read_items(inputs["texts"], "evaluation"))
    np.savez(out / "reference.npz", *wanted)


def assess(settings: AssessSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `assessment.json`: how close a variant is to the float model, and its tolerance.

    It also holds the inputs and outputs of the graphs.
    """
    import numpy as np

    variant = inputs["variant"]
    model = open_as_device(inputs["tokenizer"], variant, settings.engine, settings.precision)
    with np.load(inputs["golden"] / "reference.npz") as stored:
        wanted = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    texts = read_items(inputs["texts"], "evaluation")
    got = model.outputs(texts)
    found = model.compare(wanted, got)
    agreement = found.agreement
    if are_generated(inputs["texts"]) and tasks.find(model.task.name).DECIDES:
        agreement = weighted_agreement(model.task, wanted, got)
    golden = [texts.index(text) for text in read_items(inputs["texts"], "golden")]
    near = model.compare([wanted[i] for i in golden], [got[i] for i in golden])
    assessment = {
        "graphs": _graphs(model),
        "agreement": round(agreement, _DIGITS),
        "cosine": round(found.mean_cosine, _DIGITS),
        "least_cosine": round(found.cosine, _DIGITS),
        "tolerance_cosine": round(max(-1.0, near.cosine - _COSINE_MARGIN), _DIGITS),
        "tolerance_agreement": round(max(0.0, near.agreement - _AGREEMENT_MARGIN), _DIGITS),
    }
    (out / "assessment.json").write_bytes(canonical_json(assessment))


def weighted_agreement(task: Task, wanted: Sequence[Any], got: Sequence[Any]) -> float:
    """Return the share of equal decisions, each weighted by how sure the float model is.

    How sure it is means the lead in probability of its label over the next one.  On generated texts
    the float model is often unsure, and int8 cannot be wrong about what the float model does not
    decide.

    Args:
        task: the task whose rules decide.
        wanted: the float model's logits, [labels] or [tokens, labels] for each text.
        got: another model's logits.

    """
    import numpy as np

    equal = total = 0.0
    for a, b in zip(wanted, got, strict=True):
        decided = decisions(task, a)
        lead = _lead(a, each=decided.shape == a.shape)
        same = decided == decisions(task, b) if a.shape == b.shape else np.zeros(1)
        equal, total = equal + float((lead * same).sum()), total + float(lead.sum())
    return equal / total if total else 1.0


def _lead(logits: Any, *, each: bool) -> Any:
    """Return the lead of each decision, from 0 to 1, for logits [..., labels].

    If `each`, every label is its own decision, yes or no.
    """
    import numpy as np

    if each:
        return np.abs(np.tanh(logits / 2))
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    ranked = np.sort(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    return ranked[..., -1] - ranked[..., -2]


def _graphs(model: Model) -> dict[str, dict[str, list[str]]]:
    return {
        graph.name: {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
        for graph in model.variant.graphs
    }


def read_assessment(folder: Path) -> dict[str, Any]:
    """Read what `assess` wrote."""
    found: dict[str, Any] = json.loads((folder / "assessment.json").read_text())
    return found


def _plain(output: Any) -> dict[str, Any]:
    data = [float(f"{value:.6g}") for value in output.ravel().tolist()]
    return {"shape": list(output.shape), "data": data}
