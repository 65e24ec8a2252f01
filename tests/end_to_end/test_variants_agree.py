"""The variants of one recipe decide alike on real rows, whichever a device picks."""

from __future__ import annotations

import dataclasses
from itertools import combinations, islice
from pathlib import Path

import pytest

from edgepack.build.build import build, plans
from edgepack.data.rows import Columns, read_rows
from edgepack.recipe.recipe import Data, Recipe
from edgepack.recipe.target import find_target
from edgepack.stages.progress import Quiet
from edgepack_runtime.model.variants import open_variant

ROWS = 1000
Decisions = dict[str, list[str]]


@pytest.fixture(scope="module")
def decisions(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Decisions:
    """Return the labels that each int8 variant gives to the rows, on this CPU."""
    folder = data / "data/clinc150"
    recipe = Recipe(
        source=str(data / "models/clinc150-teacher"),
        name="intent",
        data=Data(train=str(folder / "train.tsv"), columns=Columns()),
    )
    targets = [find_target("cpu-x86-64"), find_target("jetson-orin")]
    built = build(plans(recipe, targets), tmp_path_factory.mktemp("agree"), Quiet())
    rows = read_rows(str(folder / "val.tsv"))
    texts = [str(row["text"]) for _, row in islice(rows, 0, None, 3)][:ROWS]
    assert len(texts) == ROWS
    found: Decisions = {}
    for item in built:
        for variant in item.bundle.manifest.variants:
            if variant.precision != "int8" or variant.name in found:
                continue
            provider = "CPU" if variant.engine == "openvino" else "CPUExecutionProvider"
            here = dataclasses.replace(variant, provider=provider)
            model = open_variant(item.bundle, here)
            found[variant.name] = [answer["label"] for answer in model(texts)]
    return found


def test_all_int8_variants_agree_on_real_rows(decisions: Decisions) -> None:
    """OpenVINO, ONNX Runtime and the form for TensorRT: 99 % equal decisions, each with each."""
    assert set(decisions) == {
        "openvino-int8",
        "onnxruntime-int8",
        "onnxruntime-int8-avx2",
        "tensorrt-int8",
    }
    shares = {
        (one, other): sum(a == b for a, b in zip(decisions[one], decisions[other], strict=True))
        / ROWS
        for one, other in combinations(decisions, 2)
    }
    assert min(shares.values()) >= 0.99, shares
