"""The engine with no weights: a fixed function of the token ids, for tests and dry runs.

`null.json` holds `{"rank": 2 | 3, "size": n}`.  Row (or token) x gets a one-hot output at
the sum of its ids modulo n, so every answer is known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.manifest import Variant

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array
CPU = "null"


class NullSession:
    """Arithmetic in place of a model."""

    inputs = ("input_ids", "attention_mask")
    provider = "null"
    placement: Mapping[str, int] = {}

    def __init__(self, rank: int, size: int) -> None:
        self._rank = rank
        self._size = size

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Nothing is compiled here."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Return one-hot outputs [rows, size] or [rows, width, size]."""
        import numpy as np

        ids = feeds["input_ids"] * feeds["attention_mask"]
        chosen = (ids.sum(axis=1) if self._rank == 2 else ids) % self._size
        return [np.eye(self._size, dtype=np.float32)[chosen]]


def providers() -> tuple[str, ...]:
    """Return the one thing it runs on."""
    return (CPU,)


def open_session(
    files: Mapping[str, memoryview],
    variant: Variant,  # noqa: ARG001 (the Engine protocol)
    threads: int,  # noqa: ARG001 (the Engine protocol)
    cache: Path | None,  # noqa: ARG001 (the Engine protocol)
) -> NullSession:
    """Read `null.json`."""
    shape = json.loads(bytes(files["null.json"]))
    return NullSession(rank=int(shape["rank"]), size=int(shape["size"]))
