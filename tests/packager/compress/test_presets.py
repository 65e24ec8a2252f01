"""The sizes of a recipe: what they keep, and of which models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.build.build import plans
from edgepack.compress import prune
from edgepack.data.rows import Columns
from edgepack.recipe import presets
from edgepack.recipe.compression import Compression
from edgepack.recipe.recipe import Data, Recipe, read_recipe
from edgepack.recipe.target import find_target
from edgepack_runtime import InputError

Get = Callable[..., Path]
BERT = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


def test_a_size_becomes_layers_heads_and_neurons() -> None:
    """They follow from the model's own config, and a table of the recipe wins."""
    shapes = {}
    for size in presets.SIZES:
        steps = presets.expand(Compression(size=size), BERT, Columns())
        assert steps.prune
        assert steps.distill
        shapes[size] = (steps.prune.layers, steps.prune.heads, steps.prune.feed_forward)
    assert shapes == {"small": (3, 6, 512), "balanced": (3, 0, 768), "accurate": (4, 0, 0)}
    own = Compression(size="small", prune=prune.Settings("", layers=5))
    assert presets.expand(own, BERT, Columns()).prune == own.prune
    assert presets.expand(Compression(), BERT, Columns()) == Compression()


@pytest.mark.parametrize("size", presets.SIZES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 12, 24])
def test_no_size_keeps_more_layers_than_there_are(size: str, depth: int) -> None:
    """Shallow models too are left with a layer, and small is no deeper than balanced."""
    config = {**BERT, "num_hidden_layers": depth}
    kept = {s: presets.expand(Compression(size=s), config, Columns()).prune for s in presets.SIZES}
    found = {s: p.layers for s, p in kept.items() if p}
    assert 1 <= found[size] <= depth
    assert found["small"] <= found["balanced"] <= found["accurate"]


def test_a_recipe_names_a_size_at_its_top(model: Get, train: Path, tmp_path: Path) -> None:
    """`compress = "small"` plans trimming, pruning and distilling; other words are refused."""
    (tmp_path / "train.tsv").write_text(train.read_text())
    path = tmp_path / "edgepack.toml"
    rest = f'[model]\nsource = "{model("bert-intent")}"\n[data]\ntrain = "train.tsv"\n'
    path.write_text('compress = "small"\n' + rest)
    (plan,) = plans(read_recipe(path), [find_target("cpu-arm64")])
    assert [form.name for form in plan.forms] == ["teacher", "trimmed", "pruned", "distilled"]
    path.write_text('compress = "smal"\n' + rest)
    with pytest.raises(InputError, match="did you mean 'small'"):
        read_recipe(path)


def test_a_model_that_cannot_be_cut_has_no_size(model: Get, train: Path) -> None:
    """ALBERT shares its layers: a size is refused by name of the model's type."""
    recipe = Recipe(
        source=str(model("albert")),
        data=Data(train=str(train)),
        compression=Compression(size="small"),
    )
    with pytest.raises(InputError, match="compress: models of type 'albert' cannot be pruned"):
        plans(recipe, [find_target("cpu-arm64")])
