"""Text classification: one label, several labels, or a score; figures are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.labels import check_labels, labels_of
from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack.tasks._scores import correlations, items
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "text-classification"
AUTO_CLASS = "AutoModelForSequenceClassification"
ARCHITECTURES: tuple[str, ...] = ("ForSequenceClassification",)
HEAD = "ForSequenceClassification"
ADAPTER = "SEQ_CLS"
READS = "text"
DECODES = False
PAIRS = False
LEARNS = True
MARK = ""
PACKAGES: tuple[str, ...] = ()
_THRESHOLD = 0.5


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Measure accuracy and F1, or for scores their correlations."""
    if model.task.problem_type == "regression" or len(model.task.labels) == 1:
        return _regression(model, examples, batch_size)
    if model.task.problem_type == "multi_label_classification":
        return _multi_label(model, examples, batch_size)
    return _classes(model, examples, batch_size)


def _classes(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    if any(isinstance(example.label, tuple) for example in examples):
        raise InputError("the evaluation data has lists of labels, but the model gives one label")
    wanted = [str(example.label) for example in examples]
    found = [answer["label"] for answer in model(items(examples), batch_size=batch_size)]
    figures = {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0)),
    }
    return Quality("accuracy", figures, len(examples))


def _multi_label(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    places = {label: i for i, label in enumerate(model.task.labels)}
    wanted, found = (np.zeros((len(examples), len(places)), dtype=bool) for _ in range(2))
    answers = model(items(examples), top_k=None, batch_size=batch_size)
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        wanted[i, [places[name] for name in labels_of(example)]] = True
        found[i, [places[e["label"]] for e in answer if e["score"] > _THRESHOLD]] = True
    figures = {
        f"{kind}_f1": float(f1_score(wanted, found, average=kind, zero_division=0))
        for kind in ("micro", "macro", "samples")
    }
    figures["exact_match"] = float(accuracy_score(wanted, found))
    return Quality("micro_f1", figures, len(examples))


def _regression(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    answers = model(items(examples), function_to_apply="none", top_k=1, batch_size=batch_size)
    return correlations([answer[0]["score"] for answer in answers], examples)
