"""How many characters a text has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "echo-length"
AUTO_CLASS = "AutoModel"
ARCHITECTURES: tuple[str, ...] = ()
HEAD = ""
ADAPTER = ""
READS = "text"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:  # noqa: ARG001 (the Task protocol)
    """Measure how many lengths are right."""
    hits = sum(model(example.text) == len(example.text) for example in examples)
    return Quality("accuracy", {"accuracy": hits / len(examples)}, len(examples))
