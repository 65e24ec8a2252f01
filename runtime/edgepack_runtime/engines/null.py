"""The engine with no weights: a fixed function of the token ids, for tests and dry runs.

Its JSON file holds `{"rank": 2 | 3, "size": n}`.  A row (or token) gets a one-hot output at the
sum of its ids modulo n, so every answer is known in advance.  A state adds the ids of the earlier
runs: its output is that of the whole text so far.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import only
from edgepack_runtime.errors import InputError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array
CPU = "null"


class NullSession:
    """Arithmetic in place of a model."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("output",)
    provider = "null"
    placement: Mapping[str, int] = {}

    def __init__(self, rank: int, size: int) -> None:
        self._rank = rank
        self._size = size

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Do nothing: there is nothing to compile."""

    def begin(self, capacity: int) -> NullState:
        """Open a state."""
        return NullState(self, capacity)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return one-hot outputs [rows, size] or [rows, width, size]."""
        import numpy as np

        ids = feeds["input_ids"] * feeds["attention_mask"]
        chosen = (ids.sum(axis=1) if self._rank == 2 else ids) % self._size
        return {"output": np.eye(self._size, dtype=np.float32)[chosen]}


class NullState:
    """The ids so far."""

    def __init__(self, session: NullSession, capacity: int) -> None:
        self._session = session
        self._capacity = capacity
        self._ids: list[int] | None = []

    @property
    def length(self) -> int:
        """Count the ids."""
        return len(self._ids or ())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the output of all ids so far, for one row."""
        import numpy as np

        if self._ids is None:
            raise InputError("the state was closed")
        ids = [*self._ids, *feeds["input_ids"][0].tolist()]
        if len(ids) > self._capacity:
            raise InputError(f"the state holds {self._capacity} positions, not {len(ids)}")
        self._ids = ids
        whole = np.array([ids], dtype=np.int64)
        return self._session.run({"input_ids": whole, "attention_mask": np.ones_like(whole)})

    def truncate(self, length: int) -> None:
        """Forget the ids from `length` on."""
        self._ids = (self._ids or [])[:length]

    def close(self) -> None:
        """Forget all ids."""
        self._ids = None


def providers() -> tuple[str, ...]:
    """Return the one provider it runs on."""
    return (CPU,)


def open_session(
    files: Mapping[str, memoryview],
    variant: Variant,  # noqa: ARG001 (the Engine protocol)
    threads: int,  # noqa: ARG001 (the Engine protocol)
    cache: Path | None,  # noqa: ARG001 (the Engine protocol)
) -> NullSession:
    """Read the one JSON file; a `TrustError` if it is malformed."""
    try:
        shape = json.loads(bytes(files[only(files, ".json")]))
        return NullSession(rank=int(shape["rank"]), size=int(shape["size"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise TrustError(f"the null engine's file is malformed: {exc}") from exc
