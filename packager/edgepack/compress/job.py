"""What a training needs, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One training: what `fit` needs.

    lengths: tokens of every row. learn: numbers of the rows to learn from; held: of those held
    out. collate: makes a batch of row numbers. judge: returns the figure of a model on the
    held-out rows, called `figure`, more is better; None takes their loss.
    student: whether a teacher's answers are copied.
    """

    model: Any
    lengths: Sequence[int]
    learn: Sequence[int]
    collate: Callable[[Sequence[int]], dict[str, Any]]
    loss: Callable[[Any, dict[str, Any]], Any]
    held: Sequence[int] = ()
    judge: Callable[[Any], float] | None = None
    figure: str = "loss"
    student: bool = False
