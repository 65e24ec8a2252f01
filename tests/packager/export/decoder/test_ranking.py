"""Which layers of a decoder are hurt by rounding, and that they can be left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from languages import make
from transformers import AutoModelForCausalLM

from edgepack.export import decoder, graph
from edgepack.export.decoder import nbits, ranking


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Return the graph of a model whose second layer has weights that round badly."""
    folder = make("llama", tmp_path / "made")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.model.layers[1].named_parameters():
            if name.endswith("proj.weight"):
                weight[:, ::16] *= 20
    model.save_pretrained(folder)
    decoder.export(folder, tmp_path)
    return graph.load(tmp_path / "model.onnx")


def test_the_layer_that_rounds_badly_is_first(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few large weights take the steps of their blocks from the others."""
    rng = np.random.default_rng(0)
    windows = [list(map(int, rng.integers(3, 300, 64))) for _ in range(3)]
    monkeypatch.setattr(ranking, "read_windows", lambda _: windows)
    found = ranking.costs(written, {})
    assert sorted(found) == ["layers.0", "layers.1", "layers.2"]
    assert found["layers.1"] == max(found.values())
    assert all(0 < cost < 10 for cost in found.values())


@pytest.mark.parametrize(("precision", "kind"), [("int8", "MatMul"), ("int4", "MatMulNBits")])
def test_a_layer_is_left(precision: str, kind: str, written: Any) -> None:
    """In float beside int8, in int8 beside int4; the others are as asked."""
    if precision == "int8":
        made = nbits.to_int8(written, ("layers.1",))
    else:
        made = nbits.to_int4(written, [list(range(3, 60))], ("layers.1",))
    for node in made.graph.node:
        if node.op_type in ("MatMul", "MatMulNBits"):
            bits = {a.name: a.i for a in node.attribute}.get("bits", 32)
            own = node.name.startswith("layers.1.")
            other = 8 if precision == "int8" or "lm_head" in node.input[1] else 4
            assert bits == ({"MatMul": 32, "MatMulNBits": 8}[kind] if own else other), node.name
