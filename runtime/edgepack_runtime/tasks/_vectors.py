"""How tasks that give vectors are judged: by one pooled vector for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.numeric import pool
from edgepack_runtime.tasks._likeness import LEAST_COSINE, Agreement, compare_vectors
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import raw

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


def outputs(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return the pooled vector [width] of each text."""
    mode = opened.task.pooling or "mean"
    return [pool(output, mode) for output in raw(opened, inputs)]


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:  # noqa: ARG001 (the Task protocol)
    """Compare the vectors; vectors decide nothing."""
    return compare_vectors(wanted, got)


def least(tolerance: Tolerance) -> Tolerance:
    """Return what a variant must reach: its tolerance, but never less than the cosine floor."""
    return replace(tolerance, cosine=max(tolerance.cosine, LEAST_COSINE))
