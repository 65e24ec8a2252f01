"""Image classification.

Source of the rules: `ImageClassificationPipeline` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.tasks._images import CELL_UNIT, CELLS, Batching, cell, check, infer, many
from edgepack_runtime.tasks._images import raw as outputs
from edgepack_runtime.tasks._labels import activated, check_activation, compare, least
from edgepack_runtime.tasks._opened import Opened

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
class Options(Batching):
    """The options of a call."""

    top_k: int = 5
    """How many labels to return, best first."""
    function_to_apply: str | None = None
    """`softmax`, `sigmoid` or `none`, instead of what the model declares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation(self.function_to_apply)


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer an image with [{"label", "score"}], best first; a list of them with a list.

    Another iterable, such as the frames of a camera, is answered with an iterator: each answer
    comes when its image was read.
    """
    images = many(inputs)
    if images is None:
        return _ranked(opened, next(infer(opened, [inputs], 1)), options)
    answers = (_ranked(opened, row, options) for row in infer(opened, images, options.batch_size))
    return answers if isinstance(images, Iterator) else list(answers)


def _ranked(opened: Opened, logits: Any, options: Options) -> list[dict[str, Any]]:
    labels = opened.task.labels
    scores = activated(logits, options.function_to_apply or _declared(opened))
    order = sorted(range(len(labels)), key=lambda at: -scores[at])
    return [{"label": labels[at], "score": float(scores[at])} for at in order[: options.top_k]]


def _declared(opened: Opened) -> str:
    several = opened.task.problem_type == "multi_label_classification"
    return "sigmoid" if several or len(opened.task.labels) == 1 else "softmax"
