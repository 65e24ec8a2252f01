"""How tasks that decide between labels are judged: by their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.errors import InputError
from edgepack_runtime.numeric import sigmoid, softmax
from edgepack_runtime.tasks._likeness import LEAST_AGREEMENT, Agreement, compare_decisions
from edgepack_runtime.tasks._texts import raw as outputs

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

__all__ = ["ACTIVATIONS", "activated", "check_activation", "compare", "least", "outputs"]
ACTIVATIONS = ("softmax", "sigmoid", "none")


def check_activation(function: str | None) -> None:
    """Check the option `function_to_apply`; None leaves the choice to the model."""
    if function is not None and function not in ACTIVATIONS:
        raise InputError(f"function_to_apply must be softmax, sigmoid or none, not {function!r}")


def activated(logits: Array, function: str) -> Array:
    """Return the scores of logits [labels]."""
    if function == "none":
        return logits
    return softmax(logits) if function == "softmax" else sigmoid(logits)


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare logits, and the decisions they lead to."""
    return compare_decisions(task, wanted, got)


def least(tolerance: Tolerance) -> Tolerance:
    """Return what a variant must reach: its tolerance, but never less than the agreement floor."""
    return replace(tolerance, agreement=max(tolerance.agreement, LEAST_AGREEMENT))
