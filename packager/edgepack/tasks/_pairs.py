"""What the tasks share whose models read one text and write another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "text2text-generation"
AUTO_CLASS = "AutoModelForSeq2SeqLM"


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:  # noqa: ARG001 (a text runs alone)
    """Compare what a model writes with the labels: chrF2 by sacrebleu, and the share that is equal.

    Raises:
        InputError: a row has no text to compare with.

    """
    from sacrebleu.metrics.chrf import CHRF

    wanted = []
    for example in examples:
        if example.label is None or isinstance(example.label, tuple):
            raise InputError(
                f"line {example.line} has no text to compare with; name its column (data.label)"
            )
        wanted.append(str(example.label))
    written = [str(next(iter(a.values()))) for a in model([e.text for e in examples])]
    figures = {
        "chrf": CHRF().corpus_score(written, [wanted]).score / 100,
        "exact_match": sum(map(str.__eq__, written, wanted)) / len(wanted),
    }
    return Quality("chrf", figures, len(examples))
