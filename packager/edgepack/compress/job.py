"""What a training needs, whatever it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One training, as `fit` needs it."""

    model: Any
    """The model to train."""
    lengths: Sequence[int]
    """Tokens of every row."""
    learn: Sequence[int]
    """Numbers of the rows to learn from."""
    collate: Callable[[Sequence[int]], dict[str, Any]]
    """Makes a batch from row numbers."""
    loss: Callable[[Any, dict[str, Any]], Any]
    """Returns the loss of a model on a batch."""
    held: Sequence[int] = ()
    """Numbers of the rows held out."""
    judge: Callable[[Any], float] | None = None
    """Returns the figure of a model on the held-out rows, where more is better; None to use their
    loss."""
    figure: str = "loss"
    """The name of that figure."""
    student: bool = False
    """Whether it copies a teacher's answers."""
    beside: Any = None
    """A model that runs on every batch too, such as a teacher; None for none."""
