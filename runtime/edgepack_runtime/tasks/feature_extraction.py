"""Feature extraction: the vector of every token, as the pipeline of the same name gives.

With `pooling=True` the answer is one vector per text instead, pooled and normalised as
the model declares (sentence-transformers' `modules.json`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.inputs.calls import Cutting, listed
from edgepack_runtime.numeric import pool, unit
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, Call, cell, check, read_first
from edgepack_runtime.tasks._vectors import compare, least, outputs

__all__ = [
    "CELLS",
    "CELL_UNIT",
    "DECIDES",
    "PER_TOKEN",
    "Options",
    "answer",
    "cell",
    "check",
    "compare",
    "embed",
    "least",
    "outputs",
]

DECIDES = False
PER_TOKEN = False


@dataclass(frozen=True)
class Options(Cutting):
    """The options of a call."""

    pooling: bool = False
    """Give one vector per text."""
    return_tensors: bool = False
    """Give numpy arrays, not lists."""


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text with [1, tokens, width], or [width] if pooled; answer a list with a list."""
    inputs = listed(inputs)
    items = inputs if isinstance(inputs, list) else [inputs]
    tokens = [[opened.text.encode(item, max_length=options.max_length)] for item in items]
    answers = [_vectors(call, options) for call in read_first(opened, items, tokens, options)]
    return answers if isinstance(inputs, list) else answers[0]


def _vectors(call: Call, options: Options) -> Any:
    hidden = call.outputs[0][0]
    array = embed(call, 0) if options.pooling else hidden[None]
    return array if options.return_tensors else array.tolist()


def embed(call: Call, index: int) -> Any:
    """Pool text `index` of a call as the model declares; by the mean if it declares nothing."""
    vector = pool(call.outputs[index][0], call.spec.pooling or "mean")
    return unit(vector) if call.spec.normalize else vector
