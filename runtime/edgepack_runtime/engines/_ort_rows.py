"""Keys and values of a decoder in ONNX Runtime that grow with each token, for one or several rows.

The graphs that Optimum makes return the keys and values of all positions, old and new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgepack_runtime.engines._ort_state import PAST, PRESENT, is_held, numpy_type
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgepack_runtime.numeric import Array


class OrtRows:
    """The positions of the answers to one input, a row each."""

    def __init__(self, session: ort.InferenceSession, capacity: int) -> None:
        self._session: ort.InferenceSession | None = session
        self._capacity = capacity
        self._past = [item for item in session.get_inputs() if is_held(item.name)]
        self._given = [i.name for i in session.get_inputs() if not is_held(i.name)]
        self._outputs = [item.name for item in session.get_outputs()]
        self._held: dict[str, Array] = {}
        self.length = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run each row on the positions that follow, and add them to the state."""
        import numpy as np

        if self._session is None:
            raise InputError("the state was closed")
        rows, count = feeds["input_ids"].shape
        if self.length + count > self._capacity:
            raise InputError(f"the state holds {self._capacity} positions")
        if not self._held:
            self._held = {
                item.name: np.zeros((rows, item.shape[1], 0, item.shape[3]), numpy_type(item.type))
                for item in self._past
            }
        given = {name: feeds[name] for name in self._given}
        try:
            values = self._session.run(None, {**given, **self._held})
        except Exception as exc:
            raise DeviceError(f"onnxruntime fails on {count} more positions: {exc}") from exc
        found = dict(zip(self._outputs, values, strict=True))
        for name in self._held:
            self._held[name] = found.pop(PRESENT + name.removeprefix(PAST))
        self.length += count
        return found

    def reorder(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may be there twice."""
        import numpy as np

        if list(rows) == list(range(len(rows))):
            return
        self._held = {name: np.take(array, rows, axis=0) for name, array in self._held.items()}

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if length < self.length:
            self._held = {name: array[:, :, :length] for name, array in self._held.items()}
            self.length = length

    def close(self) -> None:
        """Free the memory."""
        self._session, self._held = None, {}
