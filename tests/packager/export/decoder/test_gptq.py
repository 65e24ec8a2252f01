"""Four bits: what is rounded stays near where the inputs are, not where they could be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepack.export.decoder import nbits
from edgepack.export.decoder.gptq import Squares, round_four

BLOCK = 32
Case = tuple[Any, Any]


@pytest.fixture
def case() -> Case:
    """A weight [96, 40], and 500 inputs that go together as those of real layers do."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 96)) + rng.normal(size=96) * 0.3
    return rng.normal(size=(96, 40)).astype(np.float32), inputs.astype(np.float32)


def _value(rounded: Case, size: int) -> Any:
    whole, scale = rounded
    assert whole.dtype == np.int16
    assert whole.min() >= -8
    assert whole.max() <= 7
    return (whole * scale[..., None]).reshape(len(whole), -1)[:, :size].T


def _loss(weight: Any, rounded: Case, inputs: Any) -> float:
    error = inputs @ (weight - _value(rounded, len(weight)))
    return float((error**2).mean() / ((inputs @ weight) ** 2).mean())


def test_products_change_less_than_by_rounding_to_the_nearest(case: Case) -> None:
    """By more than half, on inputs that were seen and on others of their kind."""
    weight, inputs = case
    seen, others = inputs[:400], inputs[400:]
    nearest = round_four(weight, np.eye(96, dtype=np.float32), BLOCK)
    found = round_four(weight, seen.T @ seen, BLOCK)
    for some in (seen, others):
        assert _loss(weight, found, some) < 0.5 * _loss(weight, nearest, some)
    assert _loss(weight, nearest, others) < 0.02


def test_a_weight_of_four_bits_stays_as_it_is() -> None:
    """What a block of sixteen steps holds exactly comes back exactly."""
    rng = np.random.default_rng(1)
    whole = rng.integers(-8, 8, size=(2, 40, BLOCK))
    whole[..., 0] = -8
    weight = (whole * np.array([0.5, -0.25])[:, None, None]).transpose(0, 2, 1).reshape(64, 40)
    rounded = round_four(weight.astype(np.float32), np.eye(64, dtype=np.float32), BLOCK)
    assert np.array_equal(_value(rounded, 64), weight)


@pytest.mark.parametrize("size", [96, 100, 7])
def test_inputs_that_no_text_used_are_rounded_too(size: int) -> None:
    """Zeros in the squares, and sizes that are no multiple of a block, break nothing."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(size, 24)).astype(np.float32)
    found = _value(round_four(weight, np.zeros((size, size), np.float32), BLOCK), size)
    assert np.abs(found - weight).max() < 0.4
    assert np.isfinite(found).all()


def test_squares_are_those_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole decoder: counted in one pass, or in several where memory is short."""
    import decoders

    from edgepack.export.decoder import gptq
    from edgepack.export.decoder.families import read
    from edgepack.export.decoder.write import write

    model = decoders.make("llama untied")
    graph = write(read(model))
    texts = [[5, 17, 40, 3, 80, 22], [9, 9, 4]]
    squares = Squares(graph, texts)
    head = squares[nbits.HEAD]
    assert set(squares) == {n.input[1] for n in graph.graph.node if n.op_type == "MatMul"}
    assert len(squares) == 13
    monkeypatch.setattr(gptq, "_MEMORY", 1)
    again = Squares(graph, texts)
    for name in again:
        assert np.allclose(again[name], squares[name], rtol=1e-4)
        assert np.linalg.eigvalsh(again[name]).min() > -1e-2
    wanted = np.zeros((64, 64))
    for ids in texts:
        import torch

        with torch.no_grad():
            last = model.model(torch.tensor([ids])).last_hidden_state[0].numpy()
        wanted += last[-1:].T @ last[-1:]  # the head sees the rows that are asked for
    assert np.allclose(head, wanted, rtol=1e-3, atol=1e-3)
