"""Translation, also between languages that a call names.

Source of the shapes: `TranslationPipeline` of transformers 4.57.
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
    """Answer a text, or a list of texts, with a list of {"translation_text": …}."""
    return _pairs.answer(opened, inputs, options, "translation_text")
