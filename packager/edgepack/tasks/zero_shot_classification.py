"""Zero-shot classification: how often the best of the data's labels is a text's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.labels import labels_of
from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "text-classification"
AUTO_CLASS = "AutoModelForSequenceClassification"
ARCHITECTURES: tuple[str, ...] = ()
HEAD = "ForSequenceClassification"
ADAPTER = ""
READS = "text"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = ()


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Measure accuracy among all labels of the data.

    Raises:
        InputError: a row has no label.

    """
    labels = sorted({name for example in examples for name in labels_of(example)})
    if not labels or any(example.label is None for example in examples):
        raise InputError("zero-shot classification is evaluated on texts that have a label")
    found = model([e.text for e in examples], candidate_labels=labels, batch_size=batch_size)
    hits = sum(row["labels"][0] in labels_of(e) for row, e in zip(found, examples, strict=True))
    return Quality("accuracy", {"accuracy": hits / len(examples)}, len(examples))
