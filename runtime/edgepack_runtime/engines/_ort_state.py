"""Keys and values of a decoder in ONNX Runtime: one buffer, bound as past and present.

The graph's attention (GroupQueryAttention) writes new positions into the buffer that it reads.  So
nothing is copied for a token, and removing positions only means giving a smaller length.  With CUDA
the buffer is in the GPU's memory; no GPU has run this yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.adapters import is_of_adapter
from edgepack_runtime.engines._adapted import adapted, no_adapter
from edgepack_runtime.engines._saved import saved_length
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgepack_runtime.numeric import Array

PAST, PRESENT = "past_key_values.", "present."
_SEEN = ".encoder."  # what a decoder looks back at, which the encoder made
_MANY = 32  # positions; a run of more takes memory that single tokens do not need
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
        on_gpu = "CUDA" in session.get_providers()[0]
        self._device = "cuda" if on_gpu else "cpu"
        self._shared: dict[str, Array] = {}  # with the session, on a CPU
        self._values: dict[str, Any] = {}
        self._adapter = no_adapter({i.name: i.shape for i in session.get_inputs()})
        self._outputs = [o.name for o in session.get_outputs() if not is_held(o.name)]
        self.length = 0
        self.capacity = 0
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` positions; those that it holds stay."""
        import numpy as np

        if capacity <= self.capacity:
            return
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for item in self._session.get_inputs():
            if item.name.startswith(PAST):
                shape = (1, item.shape[1], capacity, item.shape[3])
                array = np.zeros(shape, numpy_type(item.type))  # takes memory where it is written
                if self.length:
                    array[:, :, : self.length] = self._content(item.name)[:, :, : self.length]
                self._bind(item.name, array)
        self.capacity = capacity
        self._bind_adapter()

    def _bind(self, name: str, array: Array) -> None:
        """Bind keys or values [1, heads, capacity, width] as past and as present."""
        import onnxruntime as ort

        if self._device == "cpu":
            self._shared[name] = array
        self._values[name] = ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)
        self._binding.bind_ortvalue_input(name, self._values[name])
        self._binding.bind_ortvalue_output(PRESENT + name.removeprefix(PAST), self._values[name])

    def _content(self, name: str) -> Array:
        """Return keys or values; on a CPU the very memory of the session."""
        found: Array = self._shared[name] if name in self._shared else self._values[name].numpy()
        return found

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
        names = list(self._values)
        return {name: self._content(name)[0, :, : self.length].copy() for name in names}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Hold what another state of the same graph held.

        Raises:
            InputError: the arrays are of another graph.

        """
        wanted = {
            name: (numpy_type(value.data_type()), value.shape()[1], value.shape()[3])
            for name, value in self._values.items()
        }
        length = saved_length(arrays, wanted)
        self.grow(length)
        for name in wanted:
            held = self._content(name)
            held[0, :, :length] = arrays[name]
            self._bind(name, held)
        self.length = length

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
            self._session.run_with_iobinding(self._binding, _options() if count > _MANY else None)
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
        self._binding, self._shared, self._values, self.capacity = None, {}, {}, 0


@cache
def _options() -> Any:
    """Return the options of a run whose memory is given back after it."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def numpy_type(declared: str) -> Any:
    """Return numpy's type for a type such as ONNX Runtime's `tensor(float16)`."""
    import numpy as np

    return np.float16 if "float16" in declared else np.float32
