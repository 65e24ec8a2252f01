"""LoRA adapters: what a call adds to the products of a language model."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgepack_runtime.errors import InputError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

FOLDER = "adapters"
"""The folder of a variant that holds them."""
FIRST, SECOND = ".lora_a", ".lora_b"
"""Endings of the inputs of a product: [in, rank] and [rank, out], both float32."""


def is_of_adapter(name: str) -> bool:
    """Tell whether an input of a graph is given by an adapter."""
    return name.endswith((FIRST, SECOND))


class Adapters:
    """The adapters of a variant; each is read when it is first asked for."""

    def __init__(self, files: Mapping[str, Callable[[], memoryview]]) -> None:
        """Take {adapter: what returns its checked file}."""
        self._files = files
        self._read: dict[str, Mapping[str, Array]] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Name them."""
        return tuple(self._files)

    def arrays(self, name: str) -> Mapping[str, Array]:
        """Return the arrays of an adapter by the inputs that take them; none for no name.

        Raises:
            InputError: there is no such adapter.
            TrustError: its file is not one of an adapter.

        """
        if not name:
            return {}
        if name not in self._files:
            there = ", ".join(self._files) or "none"
            raise InputError(f"no adapter {name!r}; this bundle has {there}")
        with self._lock:
            if name not in self._read:
                self._read[name] = _read(name, self._files[name]())
            return self._read[name]


def _read(name: str, content: memoryview) -> Mapping[str, Array]:
    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except (ValueError, KeyError, OSError) as exc:
        raise TrustError(f"adapter {name} cannot be read: {exc}; build the bundle again") from exc
    wrong = [k for k, v in found.items() if v.dtype != np.float32 or not is_of_adapter(k)]
    if wrong:
        raise TrustError(f"adapter {name} has {wrong[0]!r}, which no adapter has")
    return found
