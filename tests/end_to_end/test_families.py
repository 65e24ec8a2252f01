"""Families whose graphs need more than BERT's: built for both kinds of target, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import pytest

from edgepack.build.build import build, plans
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import find_target
from edgepack.stages.progress import Quiet
from edgepack_runtime import load

TASK = "text-classification"
TEXTS = [*(text for text, _ in families.rows(24, seed=5)), "stop", "."]


def _build(folder: Path, out: Path, precision: str, *targets: str) -> list[Any]:
    recipe = Recipe(source=str(folder), name="small", task=TASK, precision=precision)
    planned = plans(recipe, [find_target(name) for name in targets])
    return [built.bundle for built in build(planned, out, Quiet(), jobs=1)]


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(
    "family",
    [
        "convbert",  # sees padding, and has depthwise convolutions
        pytest.param("distilbert", marks=pytest.mark.slow),  # a ReLU before its last layer
        pytest.param("deberta-v2", marks=pytest.mark.slow),  # branches, and products of weights
        pytest.param("gpt2", marks=pytest.mark.slow),  # positions, and a reshape at its input
        pytest.param("qwen3", marks=pytest.mark.slow),  # rotary embeddings
    ],
)
def test_a_family_builds_whole_and_answers_like_the_pipeline(family: str, tmp_path: Path) -> None:
    """No variant is left out, float32 differs by 1e-4 at most, int8 decides alike."""
    import transformers

    folder = families.make(family, TASK, tmp_path / "model")
    for bundle in _build(folder, tmp_path / "int8", "target", "cpu-x86-64", "jetson-orin"):
        assert "left_out" not in bundle.manifest.provenance
        for variant in bundle.manifest.variants:
            assert variant.measured["agreement"] >= 0.9
    pipeline = transformers.pipeline(TASK, model=str(folder), device="cpu")
    wanted = [pipeline(text, top_k=4) for text in TEXTS]
    (bundle,) = _build(folder, tmp_path / "float", "float32", "cpu-x86-64")
    for variant in bundle.manifest.variants:
        model = load(bundle.path, variant=variant.name, any_device=True)
        for got in ([model(text, top_k=4) for text in TEXTS], model(TEXTS, top_k=4)):
            for mine, theirs in zip(got, wanted, strict=True):
                assert [row["label"] for row in mine] == [row["label"] for row in theirs]
                for a, b in zip(mine, theirs, strict=True):
                    assert a["score"] == pytest.approx(b["score"], abs=1e-4)
