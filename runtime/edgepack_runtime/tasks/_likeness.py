"""How close the outputs of a model are to a reference: decisions between labels, and vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.numeric import cosine

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

# Below this, a variant agrees with the float model less often than a coin toss between two labels.
LEAST_AGREEMENT = 0.5
# An embedding this far from the float model's is about as close to those of other texts: different
# sentences of MiniLM reach 0.5, and its coarsest int8 form reaches 0.7 on a text of three dots.
LEAST_COSINE = 0.6


@dataclass(frozen=True)
class Agreement:
    """How close a model is to a reference."""

    cosine: float
    """The lowest cosine similarity of any input's outputs."""
    mean_cosine: float
    """The mean cosine similarity over the inputs."""
    agreement: float
    """The share of equal decisions; the mean cosine of outputs that decide nothing."""


def compare_decisions(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare logits with a reference of the same shapes; not-a-number counts as -1."""
    found = compare_vectors(wanted, got)
    equal = total = 0
    for a, b in zip(wanted, got, strict=True):
        if a.shape != b.shape:
            total += 1
            continue
        same = decisions(task, a) == decisions(task, b)
        if not math.isfinite(float(b.sum())):  # what is no number decides nothing
            same = same & False
        equal, total = equal + int(same.sum()), total + same.size
    return Agreement(found.cosine, found.mean_cosine, equal / total)


def compare_vectors(wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare outputs with a reference of the same shapes; not-a-number counts as -1."""
    cosines = [_likeness(a, b) for a, b in zip(wanted, got, strict=True)]
    mean = sum(cosines) / len(cosines)
    return Agreement(min(cosines), mean, mean)


def decisions(task: Task, output: Array) -> Any:
    """Return what logits decide: the index of the best label, or yes or no for each label."""
    if task.problem_type == "multi_label_classification" or output.shape[-1] == 1:
        return output > 0
    return output.argmax(axis=-1)


def _likeness(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return -1.0
    if a.size == 1:  # the cosine of single numbers only shows the sign
        x, y = float(a.ravel()[0]), float(b.ravel()[0])
        value = 1.0 - abs(x - y) / max(abs(x), abs(y), 1.0)
    else:
        value = cosine(a, b)
    return value if math.isfinite(value) else -1.0
