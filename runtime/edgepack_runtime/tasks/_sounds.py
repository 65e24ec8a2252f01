"""Shared by tasks that read sounds with one graph, `model`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack_runtime.tasks._opened import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

GRAPH = "model"
FEED = "input_values"
_SECONDS = {"1": 1, "5": 5}
CELLS = tuple(_SECONDS)
CELL_UNIT = "seconds of sound"


def check(opened: Opened) -> None:
    """Check that the graph takes only samples."""
    opened.check_feeds(GRAPH, (FEED,))


def infer(opened: Opened, samples: Array) -> Array:
    """Return the graph's first output for samples at the model's rate.

    A sound runs alone: models without an attention mask see the padding of a batch.
    """
    session = opened.graph(GRAPH)
    found: Array = session.run({FEED: opened.audio.features(samples)[None]})[session.outputs[0]][0]
    return found


def raw(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return the graph's output for each sound; each runs on its own."""
    return [infer(opened, opened.audio.read(item)) for item in inputs]


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the sound that a cell times, made of the samples."""
    import numpy as np

    whole = np.concatenate([opened.audio.read(item) for item in samples])
    return [np.resize(whole, _SECONDS[name] * opened.audio.spec.sampling_rate)], {}
