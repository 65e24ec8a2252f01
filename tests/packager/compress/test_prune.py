"""Pruning: what is left is a stock model, smaller, and right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lessons import INTENTS, TASK, new_folder, stock

from edgepack.compress import prune
from edgepack.model.torch_model import load_torch, open_torch
from edgepack_runtime import InputError

Get = Callable[..., Path]


def test_pruning_removes_weights_and_leaves_a_stock_model(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """Layers, heads and neurons are gone from the file, and AutoModel reads what is left."""
    out = new_folder(tmp_path / "pruned")
    settings = prune.Settings(TASK, layers=1, heads=1, feed_forward=16)
    prune.prune(settings, {"model": model("bert-intent"), "data": train}, out)
    found = stock(out)
    layer = found.bert.encoder.layer[0]
    assert len(found.bert.encoder.layer) == 1
    assert layer.attention.self.query.weight.shape == (16, 32)
    assert layer.intermediate.dense.weight.shape == (16, 32)
    assert open_torch(out, TASK)("turn on the lights")[0]["label"] in INTENTS


def test_pruning_keeps_what_matters(model: Get, train: Path, tmp_path: Path) -> None:
    """Neurons that were silenced before are the first to go, and nothing changes."""
    folder = tmp_path / "silenced"
    shutil.copytree(model("bert-intent"), folder)
    silenced = load_torch(folder, TASK)
    for layer in silenced.bert.encoder.layer:
        layer.intermediate.dense.weight.data[::2] = 0
        layer.intermediate.dense.bias.data[::2] = 0
        layer.output.dense.weight.data[:, ::2] = 0
    silenced.save_pretrained(folder)
    out = new_folder(tmp_path / "pruned")
    prune.prune(prune.Settings(TASK, feed_forward=32), {"model": folder, "data": train}, out)
    texts = ["turn on the lights", "book a table"]
    before, after = (open_torch(path, TASK).outputs(texts) for path in (folder, out))
    assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (prune.Settings(TASK, layers=9), "prune.layers = 9 is more than the model's 2"),
        (prune.Settings(TASK, heads=3), "prune.heads = 3 is more than the model's 2"),
    ],
)
def test_pruning_more_than_there_is_is_refused(
    settings: prune.Settings, message: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """The message names the key and both numbers."""
    with pytest.raises(InputError, match=message):
        prune.prune(settings, {"model": model("bert-intent"), "data": train}, tmp_path)


def test_an_architecture_that_cannot_be_cut_says_so(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """ALBERT shares its layers: there is none to remove."""
    settings = prune.Settings(TASK, layers=1)
    with pytest.raises(InputError, match="'albert' cannot be pruned"):
        prune.prune(settings, {"model": model("albert"), "data": train}, tmp_path)
