"""The tasks on the build host, one module each, named as in the runtime.

This folder is the registry.  What both sides must know about a task is in the runtime's module; see
`edgepack_runtime.tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError
from edgepack_runtime.tasks import known

if TYPE_CHECKING:
    from edgepack.data.rows import Example
    from edgepack_runtime.model.model import Model

__all__ = ["TORCH_BATCH", "Quality", "Task", "evaluate", "every", "find", "optimum_tasks"]

TORCH_BATCH = 32  # padding changes nothing in float


class Task(Protocol):
    """What a task module provides."""

    OPTIMUM: str
    """Optimum's name for it."""
    AUTO_CLASS: str
    """The class of transformers that loads a model with its head."""
    ARCHITECTURES: tuple[str, ...]
    """Endings of the names of architectures that answer it."""
    HEAD: str
    """Ending of the name of an architecture with a trained head; empty if it needs none."""
    ADAPTER: str
    """PEFT's name for it; empty if it has none."""
    READS: str
    """The kind of its inputs, a module of the runtime's `inputs`: `text`, `image` or `audio`."""
    DECODES: bool
    """Whether it writes token by token."""
    PAIRS: bool
    """Whether it reads one text with an encoder, and writes another."""
    LEARNS: bool
    """Whether the steps of a compression know what it learns."""
    MARK: str
    """A file that only models for this task have; empty for none."""
    PACKAGES: tuple[str, ...]
    """What its device installs beside the runtime's engine, for pip, with all that this needs."""

    def evaluate(self, model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
        """Measure a model on labelled examples; see `evaluate` of this package."""


def find(name: str) -> Task:
    """Return the module of the task called `name`, one of the runtime's."""
    return cast("Task", import_module(f"{__name__}.{name.replace('-', '_')}"))


def every() -> dict[str, Task]:
    """Return all tasks by name."""
    return {name: find(name) for name in known()}


def optimum_tasks() -> list[str]:
    """Return the tasks whose graphs Optimum makes, by its names."""
    return sorted({task.OPTIMUM for task in every().values() if not task.DECODES})


def evaluate(model: Model, examples: Sequence[Example], *, batch_size: int = 1) -> Quality:
    """Measure a model on labelled examples.

    Args:
        model: the model of a bundle, or a torch model from `open_torch`.
        examples: labelled rows for its task.
        batch_size: rows in one run; a device uses 1, and the answers of dynamic int8 depend on it.

    Raises:
        InputError: a row has no label, or the model does not know a label.

    """
    if not examples:
        raise InputError("there are no rows to evaluate")
    return find(model.task.name).evaluate(model, examples, batch_size)
