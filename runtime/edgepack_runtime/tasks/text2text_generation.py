"""Text to text: answer, rewrite or extract, as the model was trained to.

Source of the shapes: `Text2TextGenerationPipeline` of transformers 4.57.
"""

from __future__ import annotations

from typing import Any

from edgepack_runtime.tasks import _pairs
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._pairs import (
    CELL_UNIT,
    CELLS,
    PairOptions,
    cell,
    check,
    outputs,
)
from edgepack_runtime.tasks._writing import compare, least

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
    "least",
    "outputs",
]
DECIDES = False
PER_TOKEN = False
Options = PairOptions


def answer(opened: Opened, inputs: object, options: PairOptions) -> Any:
    """Answer a text, or a list of texts, with a list of {"generated_text": …}."""
    return _pairs.answer(opened, inputs, options, "generated_text")
