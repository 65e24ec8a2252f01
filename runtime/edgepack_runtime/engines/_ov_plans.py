"""Compiled shapes of an OpenVINO model, and how rows run on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack_runtime.engines._ov import ov

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


class Plan:
    """One compiled shape of the model and its request."""

    def __init__(self, compiled: Any, memory: Any) -> None:
        self._request = compiled.create_infer_request()
        # The model points into it but does not hold a reference: it must outlive the request.
        self._memory = memory
        self.inputs = tuple(item.get_any_name() for item in compiled.inputs)
        self.outputs = tuple(item.get_any_name() for item in compiled.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; the outputs are copies."""
        _start(self._request, {name: feeds[name] for name in self.inputs})
        self._request.wait()
        found = (tensor.data.copy() for tensor in self._request.output_tensors)
        return dict(zip(self.outputs, found, strict=True))


class Lanes:
    """A compiled shape of one row, on which several rows run side by side, a thread each."""

    def __init__(self, compiled: Any, memory: Any, count: int) -> None:
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._memory = memory  # it must outlive the requests
        self._inputs = tuple(item.get_any_name() for item in compiled.inputs)
        self._outputs = tuple(item.get_any_name() for item in compiled.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run rows [rows, width] one by one, as many at once as there are lanes."""
        import numpy as np

        count, lanes = len(feeds[self._inputs[0]]), len(self._requests)
        found: list[list[Array]] = []
        for row in range(count + lanes):
            request = self._requests[row % lanes]
            if lanes <= row:
                request.wait()
                found.append([tensor.data.copy() for tensor in request.output_tensors])
            if row < count:
                _start(request, {name: feeds[name][row : row + 1] for name in self._inputs})
        rows = found[:count]
        return {
            name: np.concatenate([row[at] for row in rows]) for at, name in enumerate(self._outputs)
        }


def _start(request: Any, feeds: Mapping[str, Array]) -> None:
    for name, array in feeds.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))
    request.start_async({}, None)
