"""The stages that say what right is: the float model's outputs, and how near a variant comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.artifact import open_model, read_texts
from edgepack.export import open_as_device
from edgepack_runtime.manifest import canonical_json
from edgepack_runtime.selftest import compare, reference

TOOLS = ("edgepack", "onnxruntime", "openvino", "numpy")
_DIGITS = 6
# How much further than on the build host a device may stray: other processors round and
# order their sums differently (facts: the same int8 file loses up to a point elsewhere).
_COSINE_MARGIN = 0.02
_AGREEMENT_MARGIN = 0.15


@dataclass(frozen=True)
class NoSettings:
    """The reference has none: it is the float32 ONNX graph on the CPU."""


@dataclass(frozen=True)
class AssessSettings:
    """engine: which runs the variant; precision: as in a target file."""

    engine: str
    precision: str


def make_golden(settings: NoSettings, inputs: Mapping[str, Path], out: Path) -> None:  # noqa: ARG001
    """Write `golden.json` and `reference.npz` from the float model.

    The first holds the golden texts and outputs and goes to the device; the second the
    outputs for the evaluation texts.
    """
    import numpy as np

    model = open_model(inputs["tokenizer"], inputs["export"], "onnxruntime")
    texts = read_texts(inputs["texts"], "golden")
    outputs = [_plain(output) for output in reference(model.task, model.raw(texts))]
    (out / "golden.json").write_bytes(canonical_json({"inputs": texts, "outputs": outputs}))
    wanted = reference(model.task, model.raw(read_texts(inputs["texts"], "evaluation")))
    np.savez(out / "reference.npz", *wanted)


def assess(settings: AssessSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `assessment.json`: a variant's likeness to the float model, and its tolerance."""
    import numpy as np

    variant = inputs["variant"]
    model = open_as_device(inputs["tokenizer"], variant, settings.engine, settings.precision)
    with np.load(inputs["golden"] / "reference.npz") as stored:
        wanted = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    texts = read_texts(inputs["texts"], "evaluation")
    found = compare(model.task, wanted, reference(model.task, model.raw(texts)))
    places = {text: i for i, text in enumerate(texts)}
    golden = [text for text in read_texts(inputs["texts"], "golden") if text in places]
    near = compare(
        model.task,
        [wanted[places[text]] for text in golden],
        reference(model.task, model.raw(golden)),
    )
    assessment = {
        "agreement": round(found.agreement, _DIGITS),
        "cosine": round(found.mean_cosine, _DIGITS),
        "tolerance_cosine": round(max(-1.0, near.cosine - _COSINE_MARGIN), _DIGITS),
        "tolerance_agreement": round(max(0.0, near.agreement - _AGREEMENT_MARGIN), _DIGITS),
    }
    (out / "assessment.json").write_bytes(canonical_json(assessment))


def read_assessment(folder: Path) -> dict[str, float]:
    """Read what `assess` wrote."""
    found: dict[str, float] = json.loads((folder / "assessment.json").read_text())
    return found


def _plain(output: Any) -> dict[str, Any]:
    data = [float(f"{value:.6g}") for value in output.ravel().tolist()]
    return {"shape": list(output.shape), "data": data}
