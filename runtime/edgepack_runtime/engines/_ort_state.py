"""Keys and values of a decoder in ONNX Runtime: one buffer, bound as past and present.

The graph's attention (GroupQueryAttention) writes new positions into the buffer that it reads.  So
nothing is copied for a token, and removing positions only means giving a smaller length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgepack_runtime.numeric import Array

_PAST, _PRESENT = "past_key_values.", "present."
_LENGTHS = ("seqlens_k", "total_sequence_length")


def is_held(name: str) -> bool:
    """Tell whether an input or output of a graph belongs to its state."""
    return name.startswith((_PAST, _PRESENT)) or name in _LENGTHS


class OrtState:
    """The positions of one call."""

    def __init__(self, session: ort.InferenceSession, capacity: int, device: str) -> None:
        import onnxruntime as ort

        self._session = session
        self._capacity = capacity
        self._binding: Any = session.io_binding()
        self._buffers = []
        for item in session.get_inputs():
            if item.name.startswith(_PAST):
                shape = [1, item.shape[1], capacity, item.shape[3]]
                kind = _numpy_type(item.type)
                buffer = ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, device)
                self._binding.bind_ortvalue_input(item.name, buffer)
                present = _PRESENT + item.name.removeprefix(_PAST)
                self._binding.bind_ortvalue_output(present, buffer)
                self._buffers.append(buffer)
        self._outputs = [o.name for o in session.get_outputs() if not is_held(o.name)]
        self.length = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and add them to the state."""
        import numpy as np

        if self._binding is None:
            raise InputError("the state was closed")
        count = feeds["input_ids"].shape[1]
        total = self.length + count
        if total > self._capacity:
            raise InputError(f"the state holds {self._capacity} positions, not {total}")
        arrays = {
            **feeds,
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
        }
        for name, array in arrays.items():
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as exc:
            raise DeviceError(f"onnxruntime fails on {count} more positions: {exc}") from exc
        self.length = total
        # Outputs are in the order of binding: those of the state come first, these last.
        found = self._binding.get_outputs()[-len(self._outputs) :]
        return {name: value.numpy() for name, value in zip(self._outputs, found, strict=True)}

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def close(self) -> None:
        """Free the buffers."""
        self._binding, self._buffers = None, []


def _numpy_type(declared: str) -> Any:
    import numpy as np

    return np.float16 if "float16" in declared else np.float32
