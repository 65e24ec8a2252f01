"""Shared by tasks that read images with one graph, `model`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.tasks._opened import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

GRAPH = "model"
FEED = "pixel_values"
CELLS = ("1", "8")
CELL_UNIT = "images"


@dataclass(frozen=True)
class Batching:
    """The options of tasks that read images in batches."""

    batch_size: int = 1
    """Images in one run of the graph."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")


def check(opened: Opened) -> None:
    """Check that the graph takes only pixels."""
    opened.check_feeds(GRAPH, (FEED,))


def many(inputs: object) -> Iterable[Any] | None:
    """Return the images of a call; None if it is a single one."""
    if isinstance(inputs, (str, bytes, bytearray, memoryview, Mapping)):
        return None
    dimensions = getattr(inputs, "ndim", None)
    if dimensions is not None:  # an array: of four dimensions, it is many images
        return list(inputs) if dimensions == 4 else None  # type: ignore[call-overload]
    if hasattr(inputs, "__fspath__") or not isinstance(inputs, Iterable):
        return None
    return inputs


def infer(opened: Opened, images: Iterable[Any], batch_size: int) -> Iterator[Array]:
    """Yield the graph's first output for each image, as soon as its batch is full."""
    import numpy as np

    session, batch = opened.graph(GRAPH), []
    for image in images:
        batch.append(opened.image.read(image))
        if len(batch) == batch_size:
            yield from session.run({FEED: np.stack(batch)})[session.outputs[0]]
            batch = []
    if batch:
        yield from session.run({FEED: np.stack(batch)})[session.outputs[0]]


def raw(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return the graph's output for each image; each runs on its own."""
    return list(infer(opened, inputs, 1))


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:  # noqa: ARG001 (the Task protocol)
    """Return the images and options of the call that a cell times."""
    rows = int(name)
    return [samples[0]] * rows, {"batch_size": rows}
