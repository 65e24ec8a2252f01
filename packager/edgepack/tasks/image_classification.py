"""Image classification: how often the best label is right; figures are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.labels import check_labels
from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "image-classification"
AUTO_CLASS = "AutoModelForImageClassification"
ARCHITECTURES: tuple[str, ...] = ("ForImageClassification",)
HEAD = "ForImageClassification"
ADAPTER = ""
READS = "image"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = ("pillow==13.0.0",)


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Measure accuracy and F1 on images with one label each.

    Raises:
        InputError: a row has no label, or the model does not know it.

    """
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    wanted = [str(example.label) for example in examples]
    ranked = model([example.text for example in examples], batch_size=batch_size)
    found = [answer[0]["label"] for answer in ranked]
    hits = [w in [row["label"] for row in r] for w, r in zip(wanted, ranked, strict=True)]
    figures = {
        "accuracy": float(accuracy_score(wanted, found)),
        "accuracy_at_5": sum(hits) / len(hits),
        "macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0)),
    }
    return Quality("accuracy", figures, len(examples))
