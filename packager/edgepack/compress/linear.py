"""A linear probe: how useful the embeddings of a model are before it is fine-tuned.

A fine-tuning that ends far below the probe was too short, or its learning rate was too high.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from edgepack.compress.batches import Rows

_LEARNED = 4000  # rows, evenly spaced; a probe on all rows is not worth the time
_BATCH = 64
_ITERATIONS = 100


def probe(
    model: Any, rows: Rows, classes: Sequence[object], learn: Sequence[int], held: Sequence[int]
) -> float:
    """Return the accuracy of a logistic regression on mean-pooled embeddings.

    Args:
        model: the model, before its encoder is trained.
        rows: all rows.
        classes: the label of each row.
        learn: the rows to fit on.
        held: the rows to score on.

    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learn = learn[:: max(1, -(-len(learn) // _LEARNED))]
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge to be a useful comparison
        fitted.fit(_embed(model, rows, learn), [classes[i] for i in learn])
    return float(fitted.score(_embed(model, rows, held), [classes[i] for i in held]))


def _embed(model: Any, rows: Rows, picked: Sequence[int]) -> Any:
    """Return mean-pooled hidden states, float32 [rows, width]."""
    import numpy as np
    import torch

    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(picked)), key=lambda i: int(rows.lengths[picked[i]]))
    found: list[Any] = []
    with torch.inference_mode():
        for at in range(0, len(order), _BATCH):
            batch = rows.pad([picked[i] for i in order[at : at + _BATCH]])
            batch = {name: value.to(device) for name, value in batch.items()}
            states = model.base_model(**batch)[0].float()
            mask = batch["attention_mask"].unsqueeze(-1)
            found.append(((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy())
    made = np.concatenate(found)
    back = np.empty_like(made)
    back[order] = made
    return back
