"""How a variant is compared with the model it was made of: near ties are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.build.plan import Plan
from edgepack.judge.golden import read_assessment, weighted_agreement
from edgepack.model.opened import read_items
from edgepack.stages.cache import StageCache
from edgepack_runtime.bundle.description import Task, Text

Get = Callable[..., Path]


def _folder(stage: Any) -> Path:
    found = StageCache().lookup(stage)
    assert found is not None
    return found


def _task(problem: str = "") -> Task:
    return Task("text-classification", Text("tokenizer.json", 16, 0, 0), ("a", "b"), problem)


@pytest.mark.parametrize(
    ("problem", "wanted", "got", "least", "most"),
    [
        ("", [[5, 0], [0.01, 0]], [[5, 0], [0, 0.01]], 0.99, 0.999),
        ("", [[5, 0], [5, 0]], [[5, 0], [0, 5]], 0.5, 0.5),
        ("", [[5, 0]], [[4, 0]], 1.0, 1.0),
        ("", [[0, 0]], [[0, 0]], 1.0, 1.0),
        ("", [[[9, 0], [0.01, 0]]], [[[9, 0], [0, 0.01]]], 0.99, 0.999),
        ("", [[[9, 0], [9, 0]]], [[[9, 0]]], 0.0, 0.0),
        ("multi_label_classification", [[9, 0.01]], [[9, -0.01]], 0.99, 0.999),
        ("multi_label_classification", [[9, -9]], [[9, 9]], 0.5, 0.5),
        ("regression", [[3.0]], [[-3.0]], 0.0, 0.0),
    ],
)
def test_a_near_tie_counts_by_its_lead(
    problem: str, wanted: list[Any], got: list[Any], least: float, most: float
) -> None:
    """A lost tie costs next to nothing, a lost sure decision its whole share, for every task."""
    arrays = [[np.array(x, dtype=np.float32) for x in each] for each in (wanted, got)]
    found = weighted_agreement(_task(problem), *arrays)
    assert least - 1e-6 <= found <= most + 1e-6


def test_an_assessment_has_the_least_cosine_and_weighs_generated_texts(plan: Plan) -> None:
    """The worst text stands beside the mean, and agreement on made-up texts is the weighted one."""
    from edgepack.export import open_as_device

    variant = next(v for v in plan.variants if v.spec.precision == "int8")
    found = read_assessment(_folder(variant.assess))
    with np.load(_folder(plan.golden) / "reference.npz") as stored:
        wanted = [stored[f"arr_{i}"] for i in range(len(stored.files))]
    model = open_as_device(
        _folder(plan.tokenizer), _folder(variant.make), variant.spec.engine, "int8"
    )
    got = model.outputs(read_items(_folder(plan.texts), "evaluation"))
    plain = model.compare(wanted, got)
    assert found["least_cosine"] == pytest.approx(plain.cosine, abs=1e-5)
    assert found["least_cosine"] < found["cosine"] < 1.0
    weighted = weighted_agreement(model.task, wanted, got)
    assert found["agreement"] == pytest.approx(weighted, abs=1e-5)
