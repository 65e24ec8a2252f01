"""Rows held out of the training data, for choosing settings and for stopping early.

They are never evaluation rows: the rows that the gate judges by must not influence the model.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgepack.compress.schedule import held_out
from edgepack.data.rows import Example
from edgepack.tasks import TORCH_BATCH, evaluate


def split(examples: Sequence[Example], seed: int) -> list[int]:
    """Return the numbers of the rows to hold out, in order; none if there are few rows.

    Every class gives its share, but never its last row.  Equal texts stay together, so that no
    held-out text is also learned.
    """
    wanted = held_out(len(examples))
    texts: dict[tuple[str, str | None], list[int]] = {}
    for number, example in enumerate(examples):
        texts.setdefault((example.text, example.pair), []).append(number)
    classes: dict[str, list[list[int]]] = {}
    for rows in texts.values():
        label = examples[rows[0]].label
        classes.setdefault(label if isinstance(label, str) else "", []).append(rows)
    rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
    ranked: list[tuple[float, float, list[int]]] = []
    for _, groups in sorted(classes.items()):
        rng.shuffle(groups)
        ranked += [((i + 0.5) / len(groups), rng.random(), g) for i, g in enumerate(groups[:-1])]
    ranked.sort()
    held: list[int] = []
    for _, _, rows in ranked:
        if len(held) + len(rows) <= wanted:
            held += rows
    return sorted(held)


def judge(
    tokenizer: Any, task: str, examples: Sequence[Example], longest: int
) -> Callable[[Any], float]:
    """Return a function that measures a model on held-out examples, like the gate on others."""
    from edgepack.model.torch_model import wrap_torch

    def figure(model: Any) -> float:
        with tempfile.TemporaryDirectory() as name:
            model.config.save_pretrained(name)
            tokenizer.save_pretrained(name)
            opened = wrap_torch(model, Path(name), task, longest)
        return evaluate(opened, examples, batch_size=TORCH_BATCH).value

    return figure
