"""Fill-mask: how often the most probable token is the one that was hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "fill-mask"
AUTO_CLASS = "AutoModelForMaskedLM"
ARCHITECTURES: tuple[str, ...] = ()
HEAD = "ForMaskedLM"
ADAPTER = ""
READS = "text"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = ()


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Hide the middle word of each text; measure how often its first token is among the best.

    A text of one word is left out.

    Raises:
        InputError: no text has two words.

    """
    encoder = model.encoder
    mask = encoder.tokenizer.id_to_token(encoder.spec.mask_id)
    texts, wanted = [], []
    for example in examples:
        words = example.text.split()
        at = len(words) // 2
        ids = encoder.ids(" " + words[at], special=False) if len(words) > 1 else []
        if ids:
            texts.append(" ".join([*words[:at], str(mask), *words[at + 1 :]]))
            wanted.append(ids[0])
    if not texts:
        raise InputError("the evaluation data has no text of two words, so none can be hidden")
    found = model(texts, top_k=5, batch_size=batch_size)
    ranks = [[row["token"] for row in rows] for rows in found]
    figures = {
        "accuracy": sum(t == r[0] for t, r in zip(wanted, ranks, strict=True)) / len(texts),
        "accuracy_at_5": sum(t in r for t, r in zip(wanted, ranks, strict=True)) / len(texts),
    }
    return Quality("accuracy", figures, len(texts))
