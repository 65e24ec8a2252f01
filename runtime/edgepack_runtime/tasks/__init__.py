"""The tasks: one module each, and this folder is the registry.

A task module has an `Options` dataclass (what a call accepts beside the inputs) and the
functions of the `Task` protocol.  Answers are those of `transformers.pipeline`: the same
keys, order and rounding; scores are plain Python floats, so that they are JSON.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgepack_runtime.bundle import manifest
from edgepack_runtime.errors import TrustError
from edgepack_runtime.inputs.text import TextEncoder, Tokens

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

Item = Any
Answer = Any


class Task(Protocol):
    """What a task module provides."""

    Options: type[Any]
    DECIDES: bool
    """Whether it decides between labels."""
    PER_TOKEN: bool
    """Whether each token has an answer of its own."""

    def items(self, inputs: object, options: Any) -> list[Item]:
        """Split a call's inputs into items."""

    def prepare(self, encoder: TextEncoder, item: Item, options: Any) -> list[Tokens]:
        """Tokenize one item into the texts that the model sees."""

    def windowed(self) -> bool:
        """Tell whether all windows of a long text are run, or only the first."""

    def finish(self, call: Call, options: Any) -> Answer:
        """Turn the outputs of one item into its answer."""

    def wrap(self, answers: list[Answer], inputs: object, options: Any) -> Answer:
        """Shape the answers of a whole call as its inputs were shaped."""


class Call:
    """One item of a call with everything known of it.

    outputs[i][j] is the raw output of window j of text i: [labels] or [tokens, width].
    """

    def __init__(
        self,
        spec: manifest.Task,
        encoder: TextEncoder,
        item: Item,
        tokens: list[Tokens],
        outputs: list[list[Array]],
    ) -> None:
        self.spec = spec
        self.encoder = encoder
        self.item = item
        self.tokens = tokens
        self.outputs = outputs


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
