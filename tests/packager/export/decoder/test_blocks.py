"""How large blocks become: as large as the probabilities of the next token allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from languages import make

from edgepack.export import decoder, graph
from edgepack.export.decoder import blocks, nbits
from edgepack.export.decoder.run import open_session

WINDOWS = [list(map(int, np.random.default_rng(at).integers(3, 300, 60))) for at in range(3)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return the float graph of a small model."""
    decoder.export(make("qwen2", tmp_path / "made"), tmp_path)
    return tmp_path / "model.onnx"


def _sizes(model: Any) -> set[int]:
    return {
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "block_size"
    }


@pytest.mark.parametrize(("limit", "wanted"), [(1e9, 128), (0.0, 32), ("between", 64)])
def test_blocks_are_as_large_as_the_limit_allows(
    limit: float | str, wanted: int, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loose limit gives the largest, a limit that nothing meets the smallest."""

    def made(size: int) -> Any:
        return nbits.to_int8(graph.load(written), block=size)

    reference = graph.load(written)
    exact = open_session(reference)
    found = {
        size: blocks.divergence(exact, open_session(made(size)), WINDOWS) for size in blocks.SIZES
    }
    assert 0 < found[64] < found[128]
    if isinstance(limit, str):
        limit = (found[64] + found[128]) / 2
    monkeypatch.setattr(blocks, "LIMITS", {8: limit})
    monkeypatch.setattr(blocks, "_MOST_PADDING", 1.0)
    assert _sizes(blocks.largest(made, 8, reference, WINDOWS)) == {wanted}


def test_blocks_that_are_mostly_padding_are_not_tried(written: Path) -> None:
    """Rows of 64 and 96 numbers fill no block of 128, and rows of 96 no two of 64."""
    reference = graph.load(written)
    assert blocks.padding(reference, 32) == 0
    assert 0 < blocks.padding(reference, 64) < blocks.padding(reference, 128) < 0.5
    made = blocks.largest(
        lambda size: nbits.to_int8(graph.load(written), block=size), 8, reference, WINDOWS
    )
    assert _sizes(made) == {32}


def test_a_graph_does_not_diverge_from_itself(written: Path) -> None:
    """The measure is 0 for equal graphs, and counts nats for others."""
    session = open_session(graph.load(written))
    assert blocks.divergence(session, session, WINDOWS) == pytest.approx(0, abs=1e-6)
