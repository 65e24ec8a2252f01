"""How inputs become tensors: one file for each kind of input.

The manifest says which kinds a task takes; `open_inputs` opens their readers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.inputs.audio import AudioReader
from edgepack_runtime.inputs.image import ImageReader
from edgepack_runtime.inputs.text import TextEncoder


@dataclass(frozen=True)
class Inputs:
    """The readers of a task's inputs, which make tensors."""

    text: TextEncoder | None = None
    """None for a model that takes no text."""
    image: ImageReader | None = None
    """None for a model that takes no image."""
    audio: AudioReader | None = None
    """None for a model that takes no sound."""


def open_inputs(task: Task, read: Callable[[str], bytes | memoryview]) -> Inputs:
    """Open the readers for the kinds of input that a task takes.

    Args:
        task: the task, as described by the manifest.
        read: returns the content of a file that the description names.

    Raises:
        TrustError: a file is missing, damaged or malformed.

    """
    return Inputs(
        text=TextEncoder(bytes(read(task.text.tokenizer)), task.text) if task.text else None,
        image=ImageReader(task.image) if task.image else None,
        audio=AudioReader(task.audio) if task.audio else None,
    )
