"""Zero-shot classification: labels that a call brings, judged as hypotheses by an NLI model.

Source of the rules: `ZeroShotClassificationPipeline` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Batching, listed
from edgepack_runtime.numeric import softmax
from edgepack_runtime.tasks._labels import compare, least, outputs
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, check, infer
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
_TEMPLATE = "This example is {}."


@dataclass(frozen=True)
class Options(Batching):
    """The options of a call."""

    candidate_labels: str | list[str] | None = None
    """The labels to judge: a list, or one text with commas."""
    hypothesis_template: str = _TEMPLATE
    """What is said of a text with a label; `{}` stands for the label."""
    multi_label: bool = False
    """Judge each label by itself, so that several may fit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hypothesis_template.format("a") == self.hypothesis_template:
            raise InputError(
                f"hypothesis_template {self.hypothesis_template!r} has no {{}} for the label"
            )


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text with {"sequence", "labels", "scores"}, best first; a list of them with a list.

    A text that is too long is cut; the hypothesis never is.
    """
    labels = _labels(options.candidate_labels)
    items = listed(inputs)
    texts = items if isinstance(items, list) else [items]
    if not texts:
        raise InputError("there is no text to classify")
    said = [options.hypothesis_template.format(label) for label in labels]
    rows = [
        opened.text.encode(text, hypothesis, cut="only_first").first
        for text in texts
        for hypothesis in said
    ]
    logits = iter(infer(opened, rows, options.batch_size))
    answers = [
        _ranked(opened, text, labels, [next(logits) for _ in labels], options) for text in texts
    ]
    return answers if isinstance(items, list) else answers[0]


def _labels(given: str | Sequence[str] | None) -> list[str]:
    split = given.split(",") if isinstance(given, str) else given or ()
    if not all(isinstance(label, str) for label in split):
        raise InputError("candidate_labels must be texts")
    found = [label.strip() for label in split] if isinstance(given, str) else list(split)
    found = [label for label in found if label]
    if not found:
        raise InputError("zero-shot classification needs candidate_labels, at least one")
    return found


def _ranked(
    opened: Opened, text: object, labels: Sequence[str], logits: Sequence[Any], options: Options
) -> dict[str, Any]:
    import numpy as np

    table = np.stack(logits)
    yes = entailment(opened.task.labels)
    if options.multi_label or len(labels) == 1:
        no = -1 if yes == 0 else 0
        scores = softmax(table[:, [no, yes]])[:, 1]
    else:
        scores = softmax(table[:, yes])
    order = scores.argsort()[::-1]
    return {
        "sequence": text,
        "labels": [labels[i] for i in order],
        "scores": [float(scores[i]) for i in order],
    }


def entailment(labels: Sequence[str]) -> int:
    """Return the place of the label that says a hypothesis follows; the last if none says so."""
    named = [at for at, label in enumerate(labels) if label.lower().startswith("entail")]
    return named[0] if named else len(labels) - 1


def cell(opened: Opened, name: str, samples: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the texts that a cell times, with one label."""
    texts, options = cell_of_texts(opened, name, samples)
    return texts, {**options, "candidate_labels": ["a"], "hypothesis_template": "{}"}
