"""Text classification, single- and multi-label, and regression.

Source of the rules: `TextClassificationPipeline` of transformers 4.57.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Cutting, listed
from edgepack_runtime.inputs.text import TextEncoder, Tokens
from edgepack_runtime.tasks._labels import activated, check_activation, compare, least, outputs
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, Call, cell, check, read_first

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

_LEFT_OUT: Any = object()  # None and any number have a meaning of their own
DECIDES = True
PER_TOKEN = False


@dataclass(frozen=True)
class Options(Cutting):
    """The options of a call."""

    top_k: int | None = _LEFT_OUT
    """How many labels to return, best first; None for all; by default, the single best one."""
    function_to_apply: str | None = None
    """`softmax`, `sigmoid` or `none`, instead of what the model declares."""
    return_all_scores: bool | None = None
    """Return all labels, in the model's order; `top_k=None` is today's way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation(self.function_to_apply)


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a string or {text, text_pair}, or a list of them.

    One string gives a list of one answer, or the ranked list when top_k is given.
    """
    inputs = listed(inputs)
    items = inputs if isinstance(inputs, list) else [inputs]
    tokens = [_tokenize(opened.text, item, options) for item in items]
    answers = [_score(call, options) for call in read_first(opened, items, tokens, options)]
    if isinstance(inputs, list):
        return answers
    return answers if isinstance(inputs, str) and options.top_k is _LEFT_OUT else answers[0]


def _tokenize(encoder: TextEncoder, item: object, options: Options) -> list[Tokens]:
    text, pair = item, None
    if isinstance(item, dict):
        if "text" not in item or set(item) - {"text", "text_pair"}:
            raise InputError('a text pair is {"text": …, "text_pair": …}')
        text, pair = item["text"], item.get("text_pair")
    return [encoder.encode(text, pair, max_length=options.max_length)]


def _score(call: Call, options: Options) -> Any:
    logits = call.outputs[0][0]
    labels = call.spec.labels
    scores = activated(logits, options.function_to_apply or _declared(call))
    if options.top_k is _LEFT_OUT and not options.return_all_scores:
        best = int(scores.argmax())
        return {"label": labels[best], "score": float(scores[best])}
    entries: list[dict[str, Any]] = [
        {"label": labels[i], "score": float(s)} for i, s in enumerate(scores)
    ]
    if options.top_k is _LEFT_OUT:
        return entries
    entries.sort(key=lambda entry: entry["score"], reverse=True)
    return entries if options.top_k is None else entries[: options.top_k]


def _declared(call: Call) -> str:
    kind = call.spec.problem_type
    if kind == "regression":
        return "none"
    if kind == "multi_label_classification" or len(call.spec.labels) == 1:
        return "sigmoid"
    return "softmax"
