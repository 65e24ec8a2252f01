"""How many weights share a scale: as many as texts allow, because fewer scales are faster.

The larger a block, the less there is to read for each token, unless the last block of a row is
mostly padding.  What it costs is seen in the
probabilities of the next token: their divergence from the float model's bounds the rise of the
perplexity.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from edgepack.export.decoder.run import open_session, run

SIZES = (128, 64, 32)
LIMITS = {8: 0.01, 4: 0.058}  # nats by bits: 1 % and 6 % of perplexity
_WINDOWS = 8
_MOST_PADDING = 0.03  # of a weight's rows; more would cost what larger blocks save
_log = logging.getLogger(__name__)


def largest(
    make: Callable[[int], Any], bits: int, reference: Any, windows: Sequence[Sequence[int]]
) -> Any:
    """Return the graph with the largest blocks that stays near the float graph.

    Args:
        make: returns the graph with blocks of a size.
        bits: of its weights.
        reference: the float graph.
        windows: token ids of texts.

    """
    exact = open_session(reference)
    for size in SIZES[:-1]:
        if padding(reference, size) > _MOST_PADDING:
            continue
        made = make(size)
        found = divergence(exact, open_session(made), windows[:_WINDOWS])
        _log.info("blocks of %d diverge by %.4f nats", size, found)
        if found <= LIMITS[bits]:
            return made
    return make(SIZES[-1])


def padding(model: Any, size: int) -> float:
    """Return the share of zeros that fill the last block of each row of the products' weights."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    products = [shapes.get(n.input[1], ()) for n in model.graph.node if n.op_type == "MatMul"]
    whole = sum(rows * columns for rows, columns in products)
    filled = sum(-(-rows // size) * size * columns for rows, columns in products)
    return float(1 - whole / filled)


def divergence(exact: Any, other: Any, windows: Sequence[Sequence[int]]) -> float:
    """Return the mean Kullback-Leibler divergence of the next token, in nats.

    Args:
        exact: a session of the float graph.
        other: a session of the graph to judge.
        windows: token ids of texts.

    """
    import numpy as np

    total = count = 0.0
    for ids in windows:
        wanted, found = (_log_softmax(run(x, ["logits"], ids)[0]) for x in (exact, other))
        total += float((np.exp(wanted) * (wanted - found)).sum())
        count += len(ids)
    return total / count


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
