"""Text ranking: how well documents answer a query, by a cross-encoder that reads both together.

Source of the rules: `CrossEncoder` of sentence-transformers 5, its `predict` and `rank`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Cutting, listed
from edgepack_runtime.numeric import sigmoid
from edgepack_runtime.tasks._labels import compare, least, outputs
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, check, read_first
from edgepack_runtime.tasks._texts import cell as cell_of_texts

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
_FORM = 'text ranking takes {"query": …, "documents": […]}, or a list of pairs (query, document)'


@dataclass(frozen=True)
class Options(Cutting):
    """The options of a call."""

    top_k: int | None = None
    """How many documents to return; None for all."""
    return_documents: bool = False
    """Also return the text of each document."""
    function_to_apply: str | None = None
    """`sigmoid` or `none`, instead of what the model declares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.function_to_apply not in (None, "sigmoid", "none"):
            raise InputError(
                f"function_to_apply must be sigmoid or none, not {self.function_to_apply!r}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, not {self.top_k}")


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Rank documents: [{"corpus_id", "score", "text" if asked for}], best first.

    A list of pairs is answered with a list of scores, in its own order.
    """
    if not isinstance(inputs, dict):
        return _scores(opened, _pairs(listed(inputs)), options)
    if set(inputs) != {"query", "documents"} or not isinstance(inputs["documents"], list):
        raise InputError(_FORM)
    documents = inputs["documents"]
    scores = _scores(opened, [(inputs["query"], text) for text in documents], options)
    order = sorted(range(len(documents)), key=lambda at: -scores[at])
    found: list[dict[str, Any]] = [{"corpus_id": at, "score": scores[at]} for at in order]
    if options.return_documents:
        found = [{**row, "text": documents[row["corpus_id"]]} for row in found]
    return found[: options.top_k]


def _pairs(items: object) -> list[tuple[Any, Any]]:
    if isinstance(items, list) and all(isinstance(i, (list, tuple)) and len(i) == 2 for i in items):
        return [(first, second) for first, second in items]
    raise InputError(_FORM)


def _scores(opened: Opened, pairs: Sequence[tuple[Any, Any]], options: Options) -> list[float]:
    if len(opened.task.labels) != 1:
        raise InputError(
            f"this model gives {len(opened.task.labels)} labels, not one score; build it for "
            "text-classification"
        )
    function = options.function_to_apply or opened.task.activation or "sigmoid"
    if function not in ("sigmoid", "none"):
        raise InputError(f"the model's activation {function} is not built; give function_to_apply")
    tokens = [[opened.text.encode(*pair, max_length=options.max_length)] for pair in pairs]
    found = []
    for call in read_first(opened, pairs, tokens, options):
        logits = call.outputs[0][0]
        found.append(float((sigmoid(logits) if function == "sigmoid" else logits)[0]))
    return found


def cell(
    opened: Opened, name: str, samples: Sequence[str]
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return the pairs that a cell times: its tokens are in the document."""
    texts, options = cell_of_texts(opened, name, samples)
    return [("", text) for text in texts], options
