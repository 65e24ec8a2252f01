"""Keys and values of a decoder in ONNX Runtime: one buffer, bound as past and present.

The graph's attention (GroupQueryAttention) writes new positions into the buffer that it reads.  So
nothing is copied for a token, and removing positions only means giving a smaller length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.adapters import is_of_adapter
from edgepack_runtime.engines._adapted import adapted, no_adapter
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgepack_runtime.numeric import Array

PAST, PRESENT = "past_key_values.", "present."
_SEEN = ".encoder."  # what a decoder looks back at, which the encoder made
_LENGTHS = ("seqlens_k", "total_sequence_length")


def is_held(name: str) -> bool:
    """Tell whether an input or output of a graph belongs to its state."""
    if name in _LENGTHS or is_of_adapter(name):
        return True
    return name.startswith((PAST, PRESENT)) and _SEEN not in name


def is_shared(inputs: Iterable[str]) -> bool:
    """Tell whether a graph writes new positions into the buffer that it reads."""
    return set(_LENGTHS) <= set(inputs)


class OrtState:
    """The positions of one call, or of several that share them."""

    def __init__(self, session: ort.InferenceSession, capacity: int) -> None:
        self._session = session
        self._binding: Any = session.io_binding()
        self._held: dict[str, Array] = {}
        self._adapter = no_adapter({i.name: i.shape for i in session.get_inputs()})
        self._outputs = [o.name for o in session.get_outputs() if not is_held(o.name)]
        self.length = 0
        self.capacity = 0
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` positions; those that it holds stay."""
        import numpy as np
        import onnxruntime as ort

        if capacity <= self.capacity:
            return
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for item in self._session.get_inputs():
            if item.name.startswith(PAST):
                shape = (1, item.shape[1], capacity, item.shape[3])
                array = np.zeros(shape, numpy_type(item.type))  # takes memory where it is written
                if self.length:
                    array[:, :, : self.length] = self._held[item.name][:, :, : self.length]
                self._held[item.name] = array
                buffer = ort.OrtValue.ortvalue_from_numpy(array)  # shares the array's memory
                self._binding.bind_ortvalue_input(item.name, buffer)
                present = PRESENT + item.name.removeprefix(PAST)
                self._binding.bind_ortvalue_output(present, buffer)
        self.capacity = capacity
        self._bind_adapter()

    def adapt(self, arrays: Mapping[str, Array]) -> None:
        """Take the arrays of an adapter for all runs that follow; none for no adapter."""
        plain = no_adapter({i.name: i.shape for i in self._session.get_inputs()})
        self._adapter = adapted(plain, arrays)
        self._bind_adapter()

    def _bind_adapter(self) -> None:
        for name, array in self._adapter.items():
            self._binding.bind_cpu_input(name, array)

    def arrays(self) -> dict[str, Array]:
        """Return what it holds, by name: [heads, length, width]; later runs do not change it."""
        return {name: array[0, :, : self.length].copy() for name, array in self._held.items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Hold what another state of the same graph held.

        Raises:
            InputError: the arrays are of another graph.

        """
        lengths = {array.shape[1] for array in arrays.values() if array.ndim == 3}
        fit = lengths and all(
            name in arrays
            and arrays[name].dtype == held.dtype
            and arrays[name].shape == (held.shape[1], max(lengths), held.shape[3])
            for name, held in self._held.items()
        )
        if not fit or len(arrays) != len(self._held):
            raise InputError("these positions belong to another graph")
        self.grow(max(lengths))
        for name, held in self._held.items():
            held[0, :, : max(lengths)] = arrays[name]
        self.length = max(lengths)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and add them to the state."""
        import numpy as np

        if self._binding is None:
            raise InputError("the state was closed")
        count = feeds["input_ids"].shape[1]
        total = self.length + count
        if total > self.capacity:
            raise InputError(f"the state holds {self.capacity} positions, not {total}")
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
        self._binding, self._held, self.capacity = None, {}, 0


def numpy_type(declared: str) -> Any:
    """Return numpy's type for a type such as ONNX Runtime's `tensor(float16)`."""
    import numpy as np

    return np.float16 if "float16" in declared else np.float32
