"""Decoders on OpenVINO: keys and values lie in blocks that this module owns.

OpenVINO's own transformation takes keys and values out of the graph.  So removing positions only
means giving a smaller length, and a state can outlive its call.  Keys and values have the type
that the graph is run in: smaller ones would change with the way a text was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import _ov as binding
from edgepack_runtime.engines import whole_number
from edgepack_runtime.engines._adapted import adapted, no_adapter
from edgepack_runtime.engines._ov import ov
from edgepack_runtime.engines._ov_compile import Compiler
from edgepack_runtime.engines._saved import saved_length
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_BLOCK = 32  # positions in a block of OpenVINO's CPU plug-in
_GROUP = 128  # activations that share a scale, at most; a third faster than OpenVINO's 32
_CACHES = ("key_cache.", "value_cache.")


def is_paged(variant: Variant) -> bool:
    """Tell whether the graph of a variant holds keys and values."""
    return variant.options.get("stateful") is True


class PagedSession:
    """A decoder, compiled once for texts of any length.

    Its inputs are `input_ids` int64 [1, tokens] and `rows` int64 [k].
    """

    inputs = ("input_ids", "rows")
    outputs = ("logits",)

    def __init__(self, compiler: Compiler, variant: Variant) -> None:
        self._compiler = compiler
        self.provider = compiler.provider
        self.placement: dict[str, int] = {}
        kept = "f32" if variant.precision == "float32" else compiler.usual_type()
        group = whole_number(variant, "activation_group", _GROUP, least=1)
        settings = {"KV_CACHE_PRECISION": kept, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        self._compiled, self._memory = compiler.compiled_after(
            binding.page, {**compiler.config, **settings}
        )

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`: nothing is padded."""
        return tokens

    def compile_all(self) -> None:
        """Do nothing: there is one plan."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on a text from its beginning, without a state."""
        state = self.begin(feeds["input_ids"].shape[1])
        try:
            return state.run(feeds)
        finally:
            state.close()

    def begin(self, capacity: int) -> PagedState:
        """Open a state."""
        self._compiler.refuse_after_fork()
        return PagedState(self._compiled, capacity)


class PagedState:
    """The positions of one call, or of several that share them."""

    def __init__(self, compiled: Any, capacity: int) -> None:
        self._request: Any = compiled.create_infer_request()
        self._names = {item.get_any_name() for item in compiled.inputs}
        self._caches = {
            item.get_any_name(): item
            for item in compiled.inputs
            if item.get_any_name().startswith(_CACHES)
        }
        self._plain = no_adapter(
            {
                item.get_any_name(): [
                    axis.get_length() if axis.is_static else "rank"
                    for axis in item.get_partial_shape()
                ]
                for item in compiled.inputs
            }
        )
        self._held: dict[str, Array] = {}
        self.adapt({})
        self.length = 0
        self.capacity = 0
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` positions; those that it holds stay."""
        import numpy as np

        if capacity <= self.capacity:
            return
        blocks = -(-capacity // _BLOCK)
        for name, item in self._caches.items():
            shape = item.get_partial_shape()
            sizes = (blocks, *(shape[axis].get_length() for axis in (1, 2, 3)))
            wide = item.get_element_type().size == np.dtype(np.float32).itemsize
            array = np.zeros(sizes, np.float32 if wide else np.uint16)
            if self.length:
                array[: len(self._held[name])] = self._held[name]
            self._held[name] = array
            tensor = ov.Tensor(array, ov.Shape(sizes), item.get_element_type())
            self._request.set_tensor(name, tensor)
        self.capacity = blocks * _BLOCK

    def adapt(self, arrays: Mapping[str, Array]) -> None:
        """Take the arrays of an adapter for all runs that follow; none for no adapter."""
        self._adapter = adapted(self._plain, arrays)  # shared with the request
        for name, array in self._adapter.items():
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def arrays(self) -> dict[str, Array]:
        """Return what it holds, by name: [heads, length, width], two bytes each as uint16."""
        return {name: _flat(array)[:, : self.length].copy() for name, array in self._held.items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Hold what another state of the same graph held.

        Raises:
            InputError: the arrays are of another graph.

        """
        held_as = {n: (held.dtype, held.shape[1], held.shape[3]) for n, held in self._held.items()}
        length = saved_length(arrays, held_as)
        self.grow(length)
        for name, held in self._held.items():
            for start in range(0, length, _BLOCK):
                part = arrays[name][:, start : start + _BLOCK]
                held[start // _BLOCK, :, : part.shape[1]] = part
        self.length = length

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and add them to the state."""
        import numpy as np

        if self._request is None:
            raise InputError("the state was closed")
        ids = feeds["input_ids"][0]
        total = self.length + len(ids)
        if total > self.capacity:
            raise InputError(f"the state holds {self.capacity} positions, not {total}")
        used = -(-total // _BLOCK)
        arrays = {
            "input_ids": np.ascontiguousarray(ids),
            "rows": np.ascontiguousarray(feeds["rows"]),
            "position_ids": np.arange(self.length, total, dtype=np.int64),
            "past_lens": np.array([self.length], dtype=np.int32),
            "subsequence_begins": np.array([0, len(ids)], dtype=np.int32),
            "block_indices": np.arange(used, dtype=np.int32),
            "block_indices_begins": np.array([0, used], dtype=np.int32),
            "max_context_len": np.array(total, dtype=np.int32),
        }
        for name in self._names & arrays.keys():
            self._request.set_tensor(name, ov.Tensor(arrays[name], shared_memory=True))
        try:
            self._request.start_async({}, None)
            self._request.wait()
        except RuntimeError as exc:
            raise DeviceError(f"openvino fails on {len(ids)} more positions: {exc}") from exc
        self.length = total
        return {"logits": self._request.get_tensor("logits").data.copy()}

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def close(self) -> None:
        """Free the blocks."""
        self._request, self._held, self.capacity = None, {}, 0


def _flat(blocks: Array) -> Array:
    """Return [blocks, heads, positions, width] as [heads, positions, width]."""
    count, heads, size, width = blocks.shape
    found: Array = blocks.transpose(1, 0, 2, 3).reshape(heads, count * size, width)
    return found
