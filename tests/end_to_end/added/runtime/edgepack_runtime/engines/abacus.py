"""An engine that counts: its file says by how much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Stateless, only

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array
CPU = "CPU"


class Abacus(Stateless):
    """A row of beads."""

    inputs = ("characters",)
    outputs = ("length",)
    provider = CPU
    placement: Mapping[str, int] = {}

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Nothing is compiled here."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Count."""
        import numpy as np

        return {"length": np.array([self._factor * len(feeds["characters"])], np.float32)}


def providers() -> tuple[str, ...]:
    """Return the one thing it runs on."""
    return (CPU,)


def open_session(
    files: Mapping[str, memoryview],
    variant: Variant,  # noqa: ARG001 (the Engine protocol)
    threads: int,  # noqa: ARG001 (the Engine protocol)
    cache: Path | None,  # noqa: ARG001 (the Engine protocol)
) -> Abacus:
    """Read the factor."""
    return Abacus(bytes(files[only(files, ".bin")])[0])
