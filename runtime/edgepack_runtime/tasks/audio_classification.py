"""Audio classification.

Source of the rules: `AudioClassificationPipeline` of transformers 4.57.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.tasks._labels import activated, check_activation, compare, least
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._sounds import CELL_UNIT, CELLS, cell, check, infer
from edgepack_runtime.tasks._sounds import raw as outputs

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
DECIDES = True
PER_TOKEN = False


@dataclass(frozen=True)
class Options:
    """The options of a call."""

    top_k: int | None = None
    """How many labels to return, best first; None for all."""
    function_to_apply: str | None = None
    """`softmax`, `sigmoid` or `none`, instead of softmax."""

    def __post_init__(self) -> None:
        check_activation(self.function_to_apply)
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, not {self.top_k}")


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a sound with [{"score", "label"}], best first; a list of them with a list."""
    if isinstance(inputs, list):
        return [answer(opened, item, options) for item in inputs]
    logits, labels = infer(opened, opened.audio.read(inputs)), opened.task.labels
    scores = activated(logits, options.function_to_apply or "softmax")
    order = sorted(range(len(labels)), key=lambda at: -scores[at])[: options.top_k]
    return [{"score": float(scores[at]), "label": labels[at]} for at in order]
