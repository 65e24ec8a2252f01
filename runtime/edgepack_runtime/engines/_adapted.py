"""The arrays of adapters, as graphs take them: of rank 0 where a call has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.adapters import FIRST, is_of_adapter
from edgepack_runtime.engines import AdaptedState, State
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


def no_adapter(shapes: Mapping[str, Sequence[Any]]) -> dict[str, Array]:
    """Return arrays of rank 0 for the inputs of adapters; `shapes` are those of all inputs."""
    import numpy as np

    found: dict[str, Array] = {}
    for name, shape in shapes.items():
        if is_of_adapter(name):
            sizes = (shape[0], 0) if name.endswith(FIRST) else (0, shape[1])
            found[name] = np.zeros(sizes, dtype=np.float32)
    return found


def adapted(plain: Mapping[str, Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays for all inputs of adapters: those given, and those of rank 0.

    Raises:
        InputError: the graph has no such input, or one of another size.

    """
    import numpy as np

    for name, array in arrays.items():
        kept = 0 if name.endswith(FIRST) else 1
        if name not in plain or array.ndim != 2 or array.shape[kept] != plain[name].shape[kept]:
            raise InputError(f"the adapter gives {name}, which this graph does not take")
    return {**plain, **{name: np.ascontiguousarray(array) for name, array in arrays.items()}}


def use_adapter(state: State, arrays: Mapping[str, Array]) -> None:
    """Give a state the arrays of an adapter; nothing to a graph that takes none.

    Raises:
        InputError: there are arrays, but the graph takes none.

    """
    if isinstance(state, AdaptedState):
        state.adapt(arrays)
    elif arrays:
        raise InputError("this variant's engine takes no adapters; leave adapter out")
