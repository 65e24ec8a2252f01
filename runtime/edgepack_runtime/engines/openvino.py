"""OpenVINO on CPU.

Small graphs spend much of a short text on dynamic shapes.  So a variant may name
`static_tokens`: a single text is padded to the least of these lengths that holds it and
runs on a plan of fixed shape; everything else runs on the dynamic plan, its widths rounded
up to `pad_multiple` so that shapes recur.  Each plan is compiled on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import openvino as ov  # noqa: TID253 (only imported when a bundle needs it)

from edgepack_runtime.errors import DeviceError
from edgepack_runtime.manifest import Variant

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


_DYNAMIC = 0


class Plan:
    """One compiled shape of the model and its request."""

    def __init__(self, compiled: ov.CompiledModel, inputs: tuple[str, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = inputs

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run one batch; the outputs are copies."""
        for name in self._inputs:
            self._request.set_tensor(name, ov.Tensor(feeds[name], shared_memory=True))
        self._request.start_async()
        self._request.wait()
        return [tensor.data.copy() for tensor in self._request.output_tensors]


class OpenVinoSession:
    """One model, compiled once per plan."""

    provider = "CPU"

    def __init__(
        self, model: ov.Model, weights: ov.Tensor, variant: Variant, config: dict[str, Any]
    ) -> None:
        self._core = ov.Core()
        self._model = model
        self._weights = weights  # the model points into it and does not keep it alive
        self._config = config
        self._static = tuple(sorted(variant.options.get("static_tokens", ())))
        self._multiple = int(variant.options.get("pad_multiple", 1))
        self._limit = int(variant.options.get("max_tokens", 0))
        self._plans: dict[int, Plan] = {}
        self._lock = Lock()
        self.inputs = tuple(item.get_any_name() for item in model.inputs)

    def width(self, rows: int, tokens: int) -> int:
        """Return the least static length for a short single text, else a multiple."""
        fit = next((size for size in self._static if tokens <= size), 0)
        if rows == 1 and fit:
            return fit
        rounded = -(-tokens // self._multiple) * self._multiple
        return max(tokens, min(rounded, self._limit)) if self._limit else rounded

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run int64 arrays [rows, width]."""
        rows, width = feeds[self.inputs[0]].shape
        static = width if rows == 1 and width in self._static else _DYNAMIC
        with self._lock:
            if static not in self._plans:
                self._plans[static] = self._compile(static)
            return self._plans[static].run(feeds)

    def _compile(self, tokens: int) -> Plan:
        model = self._model
        if tokens != _DYNAMIC:
            model = model.clone()
            model.reshape({item: [1, tokens] for item in model.inputs})
        try:
            compiled = self._core.compile_model(model, "CPU", self._config)
        except RuntimeError as exc:
            raise DeviceError(f"openvino cannot compile the graph: {exc}") from exc
        return Plan(compiled, self.inputs)


def open_session(
    files: Mapping[str, memoryview], variant: Variant, threads: int
) -> OpenVinoSession:
    """Load `openvino_model.xml` and its weights.

    Raises:
        DeviceError: OpenVINO cannot read the graph.

    """
    import numpy as np

    content = np.frombuffer(files["openvino_model.bin"], dtype=np.uint8)
    # A bundle maps its files copy-on-write, so that OpenVINO accepts them without a copy.
    if not content.flags.writeable:
        content = content.copy()
    weights = ov.Tensor(content, shared_memory=True)
    try:
        model = ov.Core().read_model(bytes(files["openvino_model.xml"]), weights)
    except RuntimeError as exc:
        raise DeviceError(f"openvino cannot read the graph: {exc}") from exc
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    if variant.precision == "float32":  # else bfloat16 where the CPU has it, as OpenVINO picks
        config["INFERENCE_PRECISION_HINT"] = "f32"
    return OpenVinoSession(model, weights, variant, config)
