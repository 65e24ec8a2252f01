"""The tasks, one module each; this folder is the registry.

A task module has an `Options` dataclass (what a call accepts besides the inputs) and the functions
of the `Task` protocol.  It owns its answer: it turns the inputs of a call into tensors, runs the
graphs of the model by name, and returns the answer, or yields it piece by piece.  Answers are those
of `transformers.pipeline`: the same keys, order and rounding.  Scores are plain Python floats, so
that they can be written as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgepack_runtime.bundle import description, manifest
from edgepack_runtime.errors import TrustError
from edgepack_runtime.tasks._likeness import Agreement
from edgepack_runtime.tasks._opened import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

__all__ = ["Agreement", "Opened", "Task", "find", "known"]


class Task(Protocol):
    """What a task module provides."""

    Options: type[Any]
    """What a call accepts besides the inputs; a frozen dataclass."""
    DECIDES: bool
    """Whether it decides between labels."""
    PER_TOKEN: bool
    """Whether each token has an answer of its own."""
    CELLS: tuple[str, ...]
    """The names of what is timed; budgets of latency and energy refer to the first."""
    CELL_UNIT: str
    """What the numbers in those names count."""

    def check(self, opened: Opened) -> None:
        """Check that the graphs take what this task makes; a `DeviceError` if they do not."""

    def answer(self, opened: Opened, inputs: object, options: Any) -> Any:
        """Answer one call."""

    def outputs(self, opened: Opened, inputs: Sequence[Any]) -> list[Array]:
        """Return the outputs compared with the float model's; each input runs on its own."""

    def compare(
        self, task: description.Task, wanted: Sequence[Array], got: Sequence[Array]
    ) -> Agreement:
        """Compare such outputs with a reference."""

    def least(self, tolerance: manifest.Tolerance) -> manifest.Tolerance:
        """Return what a variant must reach: its tolerance, but never less than the floor."""

    def cell(self, opened: Opened, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        """Return the inputs and options of the call that a cell times, made from sample inputs.

        There are no inputs if the model cannot take them.
        """


def find(name: str) -> Task:
    """Return the module of the task called `name` (kebab-case).

    Raises:
        TrustError: this runtime has no such task.

    """
    if name not in known():
        raise TrustError(f"unknown task {name!r}; this runtime has {', '.join(known())}")
    return cast("Task", import_module(f"{__name__}.{name.replace('-', '_')}"))


def known() -> list[str]:
    """List the tasks by their file names."""
    return sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("[a-z]*.py"))
