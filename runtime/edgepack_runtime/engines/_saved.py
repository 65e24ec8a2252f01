"""Saved keys and values: whether they are those of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


def saved_length(arrays: Mapping[str, Array], wanted: Mapping[str, tuple[Any, int, int]]) -> int:
    """Return how many positions saved arrays [heads, positions, width] hold.

    Args:
        arrays: what was saved, by name.
        wanted: {name: (type, heads, width)} of the graph.

    Raises:
        InputError: they are of another graph.

    """
    lengths = {array.shape[1] for array in arrays.values() if array.ndim == 3}
    length = max(lengths, default=0)
    fit = length and all(
        name in arrays
        and arrays[name].dtype == kind
        and arrays[name].shape == (heads, length, width)
        for name, (kind, heads, width) in wanted.items()
    )
    if not fit or len(arrays) != len(wanted):
        raise InputError("these positions belong to another graph")
    return length
