"""How tasks that decide between labels are judged: by their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.tasks._likeness import LEAST_AGREEMENT, Agreement, compare_decisions
from edgepack_runtime.tasks._texts import raw as outputs

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

__all__ = ["compare", "least", "outputs"]


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare logits, and the decisions they lead to."""
    return compare_decisions(task, wanted, got)


def least(tolerance: Tolerance) -> Tolerance:
    """Return what a variant must reach: its tolerance, but never less than the agreement floor."""
    return replace(tolerance, agreement=max(tolerance.agreement, LEAST_AGREEMENT))
