"""What cannot work is refused when the build is planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.build.build import plans
from edgepack.recipe.recipe import read_recipe
from edgepack.recipe.target import find_target
from edgepack_runtime import InputError

Get = Callable[..., Path]


def _planned(folder: Path, model: Path, text: str) -> None:
    path = folder / "edgepack.toml"
    head = f'[model]\nsource = "{model}"\n[data]\ntrain = "train.tsv"\n'
    path.write_text(text.replace("[model]", head) if "[model]" in text else head + text)
    plans(read_recipe(path), [find_target("cpu-arm64")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prune]\nlayers = 7\n", "prune.layers = 7 is more than the model's 2"),
        ("[prune]\nfeed_forward = 9999\n", "prune.feed_forward = 9999 is more than the model's"),
        ("[prune]\nheads = 0\n", "prune.heads: must be at least 1, not 0"),
        ("[prune]\n", "prune: removes nothing"),
        ("[prune]\nlayers = 1\n[distill]\nlayers = 2\n", "distill.layers is 2; the model has 1"),
        ('evaluation = "other.tsv"\n[finetune]\n', "labels that the model does not know: 'lamps'"),
        ('evaluation = "numbers.tsv"\n[finetune]\n', "labels that the model does not know: '0'"),
        ('evaluation = "other.tsv"\n[distill]\n', "labels that the model does not know: 'lamps'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(
    text: str, message: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """Sizes and labels are checked when the build is planned, from config.json and the data."""
    rows = train.read_text()
    (tmp_path / "train.tsv").write_text(rows)
    (tmp_path / "other.tsv").write_text(rows.replace("\tlights", "\tlamps"))
    (tmp_path / "numbers.tsv").write_text("text\tlabel\nlights on\t0\nrain\t1\n")
    with pytest.raises(InputError, match=message):
        _planned(tmp_path, model("bert-intent"), text)


def test_one_class_only_is_refused_before_any_training(model: Get, tmp_path: Path) -> None:
    """There is nothing to learn from one label, and the plan says so."""
    (tmp_path / "train.tsv").write_text("text\tlabel\nhello\ta\nyou\ta\n")
    with pytest.raises(InputError, match="only one class: a"):
        _planned(tmp_path, model("bert-intent"), "[finetune]\n")
