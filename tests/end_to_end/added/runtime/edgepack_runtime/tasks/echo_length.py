"""How many characters a text has; with `stream`, and then twice as many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.tasks._likeness import Agreement, compare_vectors
from edgepack_runtime.tasks._opened import Opened

DECIDES = False
PER_TOKEN = False
CELLS = ("one",)
CELL_UNIT = "texts"


@dataclass(frozen=True)
class Options:
    """stream: answer piece by piece."""

    stream: bool = False


def check(opened: Opened) -> None:
    """See that both graphs count characters."""
    for graph in ("count", "double"):
        opened.check_feeds(graph, ("characters",))


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Return the length, or yield it and its double."""
    return _pieces(opened, inputs) if options.stream else int(_ask(opened, "count", inputs)[0])


def _pieces(opened: Opened, text: object) -> Iterator[int]:
    for graph in ("count", "double"):
        yield int(_ask(opened, graph, text)[0])


def _ask(opened: Opened, graph: str, text: object) -> Any:
    import numpy as np

    characters = np.frombuffer(str(text).encode("utf-32-le"), dtype=np.int32)
    return opened.run(graph, {"characters": characters})["length"]


def outputs(opened: Opened, inputs: Sequence[Any]) -> list[Any]:
    """Return the length of each text."""
    return [_ask(opened, "count", text) for text in inputs]


def compare(task: Task, wanted: Sequence[Any], got: Sequence[Any]) -> Agreement:  # noqa: ARG001 (the Task protocol)
    """Compare lengths."""
    return compare_vectors(wanted, got)


def least(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance."""
    return tolerance


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001 (the Task protocol)
    """Return the first sample."""
    return samples[0], {}
