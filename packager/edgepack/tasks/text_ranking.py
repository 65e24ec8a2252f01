"""Text ranking: how high the right documents of a query are ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack.tasks._scores import is_number
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
LEARNS = True
MARK = ""
PACKAGES: tuple[str, ...] = ()
_BEST = 10


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Measure nDCG and the reciprocal rank of the first right document, among the ten best.

    A row is a query (text), a document (pair) and how relevant it is (label).  Rows of one query
    are ranked together.

    Raises:
        InputError: a row has no document or no number, or no query has two documents that differ.

    """
    import numpy as np
    from sklearn.metrics import ndcg_score

    wrong = [e.line for e in examples if e.pair is None or not is_number(e.label)]
    if wrong:
        raise InputError(
            f"evaluation data, line {wrong[0]}: ranking needs a query, a document (data.pair) and "
            "a number that says how relevant it is"
        )
    scores = model([(e.text, e.pair) for e in examples], batch_size=batch_size)
    queries: dict[str, list[tuple[float, float]]] = {}
    for example, score in zip(examples, scores, strict=True):
        queries.setdefault(example.text, []).append((float(str(example.label)), score))
    gains, ranks = [], []
    for rows in queries.values():
        wanted, found = (np.array(values) for values in zip(*rows, strict=True))
        if wanted.min() == wanted.max():
            continue
        gains.append(float(ndcg_score([wanted], [found], k=_BEST)))
        ranked = wanted[np.argsort(-found, kind="stable")][:_BEST] > 0
        ranks.append(1.0 / (int(ranked.argmax()) + 1) if ranked.any() else 0.0)
    if not gains:
        raise InputError("no query of the evaluation data has documents of different relevance")
    figures = {"ndcg_at_10": sum(gains) / len(gains), "mrr_at_10": sum(ranks) / len(ranks)}
    return Quality("ndcg_at_10", figures, len(examples))
