"""What becomes tensors: one file a kind of input.

A task says in the manifest which kinds it takes; `open_inputs` opens what reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgepack_runtime.bundle.manifest import Task
from edgepack_runtime.inputs.text import TextEncoder


@dataclass(frozen=True)
class Inputs:
    """What makes tensors of a task's inputs."""

    text: TextEncoder | None = None
    """None for a model that takes no text."""


def open_inputs(task: Task, read: Callable[[str], bytes | memoryview]) -> Inputs:
    """Open what reads the kinds of input that a task takes.

    Args:
        task: as the manifest describes it.
        read: returns a file that the description names.

    Raises:
        TrustError: a file is missing, damaged or malformed.

    """
    return Inputs(
        text=TextEncoder(bytes(read(task.text.tokenizer)), task.text) if task.text else None
    )
