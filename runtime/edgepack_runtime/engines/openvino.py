"""OpenVINO on its devices: CPU, GPU and NPU.

With short texts, small graphs spend much of their time on dynamic shapes.  So a variant may name
`static_tokens`: a text is padded to the smallest of these lengths that holds it, and runs on a plan
of fixed shape.  A longer text, and a batch whose answers do not depend on the plan, run on the
dynamic plan; their widths are rounded up to `pad_multiple`, so that shapes recur.  With
`static_only`, which an NPU needs, there is no dynamic plan.  The first plan is compiled at load,
the others on first use.  Compiled plans are cached by OpenVINO version, device and CPU.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Stateless, only, whole_number
from edgepack_runtime.engines import _kept as kept
from edgepack_runtime.engines._batching import mixes
from edgepack_runtime.errors import DeviceError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_DYNAMIC = 0
CPU = "CPU"
_FULL_NAME = "FULL_DEVICE_NAME"
_log = logging.getLogger(__name__)


def _import_openvino() -> Any:
    """Import OpenVINO's binding without its Python layer, which no device needs.

    That layer (operator sets, converter, telemetry) takes three quarters of the import time and
    15 MB.  Other code in this process can import the whole package before or after.
    """
    name = "openvino._pyopenvino"
    if "openvino" in sys.modules:
        return import_module(name)
    spec = find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("no package openvino")
    package = ModuleType("openvino")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["openvino"] = package
    try:
        return import_module(name)
    finally:
        if sys.modules.get("openvino") is package:
            del sys.modules["openvino"]


ov = _import_openvino()


@cache
def _core(process: int) -> Any:  # noqa: ARG001 (a fork needs one of its own)
    """Return the one core of a process; a second one would load every plug-in again."""
    return ov.Core()


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
        for name in self.inputs:
            self._request.set_tensor(name, ov.Tensor(feeds[name], shared_memory=True))
        self._request.start_async({}, None)
        self._request.wait()
        found = (tensor.data.copy() for tensor in self._request.output_tensors)
        return dict(zip(self.outputs, found, strict=True))


class OpenVinoSession(Stateless):
    """One model, compiled once for each plan.

    Attributes:
        provider: the device, `CPU`, `GPU` or `NPU`.  OpenVINO runs a whole graph on the device it
            was compiled for, or fails.

    """

    def __init__(
        self, files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
    ) -> None:
        self._core = _core(os.getpid())
        self.placement: dict[str, int] = {}
        self._files = files
        self._cache = cache
        self._config = _config(variant, threads)
        self._static = _static_tokens(variant)
        self._static_only = variant.options.get("static_only") is True
        if self._static_only and not self._static:
            raise TrustError(f"variant {variant.name}: static_only needs static_tokens")
        self._multiple = whole_number(variant, "pad_multiple", 1, least=1)
        self._limit = whole_number(variant, "max_tokens", 0, least=0)
        # A plan of fixed shape takes one row.  A batch of short texts runs on it text by text if
        # the dynamic plan would give different answers.
        self._by_row = self._static_only or not mixes(variant)
        self._process = os.getpid()
        self._lock = Lock()
        self.provider = _device(self._core, variant)
        first = self._static[0] if self._static else _DYNAMIC
        self._plans = {first: self._plan(first)}
        self.inputs, self.outputs = self._plans[first].inputs, self._plans[first].outputs

    def width(self, rows: int, tokens: int) -> int:
        """Return the smallest static length that holds the text, else a multiple."""
        fit = next((size for size in self._static if tokens <= size), 0)
        if fit and (rows == 1 or self._by_row):
            return fit
        rounded = -(-tokens // self._multiple) * self._multiple
        return max(tokens, min(rounded, self._limit)) if self._limit else rounded

    def compile_all(self) -> None:
        """Compile every plan, so that no answer waits for one."""
        with self._lock:
            for tokens in (*self._static, *([] if self._static_only else [_DYNAMIC])):
                if tokens not in self._plans:
                    self._plans[tokens] = self._plan(tokens)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run int64 arrays [rows, width] by name."""
        self._refuse_after_fork()
        rows, width = feeds["input_ids"].shape
        if rows > 1 and self._by_row and width in self._static:
            return self._run_by_row(feeds)
        tokens = width if rows == 1 and width in self._static else _DYNAMIC
        if self._static_only and tokens == _DYNAMIC:
            raise DeviceError(f"no plan of this variant takes {width} tokens")
        with self._lock:
            if tokens not in self._plans:
                self._plans[tokens] = self._plan(tokens)
            try:
                return self._plans[tokens].run(feeds)
            except RuntimeError as exc:
                raise DeviceError(f"openvino fails on {rows}×{width} tokens: {exc}") from exc

    def _refuse_after_fork(self) -> None:
        """Raise an error instead of waiting for ever: a fork does not copy OpenVINO's threads."""
        if os.getpid() != self._process:
            raise DeviceError(
                "this process was forked after the model was loaded, and a fork does not have "
                "OpenVINO's threads: load the model in each worker (gunicorn without --preload, "
                "multiprocessing with the spawn method), or pick a variant of onnxruntime"
            )

    def _run_by_row(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        count = len(feeds["input_ids"])
        rows = [self.run({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.outputs}

    def _plan(self, tokens: int) -> Plan:
        """Take a plan from the cache, or compile and cache it."""
        path = self._path(tokens)
        if path is not None and (content := _read_kept(path)) is not None:
            with suppress(RuntimeError):  # cached by a build that only looked the same
                blob = _tensor(content)
                return Plan(self._core.import_model(blob, self.provider, self._config), blob)
        compiled = self._compile(tokens)
        if path is not None:
            try:
                kept.write(path, compiled.export_model().getvalue())
            except (OSError, RuntimeError) as exc:  # some devices cannot export
                _log.info("the compiled model is not cached: %s", exc)
        return Plan(compiled, self._weights)

    def _compile(self, tokens: int) -> Any:
        try:
            model = self._model
            if tokens != _DYNAMIC:
                model = model.clone()
                model.reshape({item: [1, tokens] for item in model.inputs})
            return self._core.compile_model(model, self.provider, self._config)
        except RuntimeError as exc:
            raise DeviceError(f"openvino cannot load the graph: {exc}") from exc

    @cached_property
    def _model(self) -> Any:
        name = only(self._files, ".xml")
        graph = bytes(self._files[name])
        if not graph.startswith((b"<?xml", b"<net")):  # a graph in ONNX may name any file
            raise TrustError(f"{name} is not OpenVINO's own XML; build the bundle again")
        self._weights = _tensor(self._files[only(self._files, ".bin")])
        return self._core.read_model(graph, self._weights)

    def _path(self, tokens: int) -> Path | None:
        """Name the file of a plan; it depends on the OpenVINO version, the device and settings."""
        if self._cache is None:
            return None
        identity = [ov.get_version(), str(sorted(self._config.items()))]
        if self.provider != CPU:
            identity += [self.provider, str(self._core.get_property(self.provider, _FULL_NAME))]
        key = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
        return self._cache / f"openvino-{tokens}-{key}.blob"


def providers() -> tuple[str, ...]:
    """List OpenVINO's devices; a kind may be listed more than once."""
    return tuple(name.partition(".")[0] for name in _core(os.getpid()).available_devices)


def open_session(
    files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
) -> OpenVinoSession:
    """Load the one `.xml` file and its `.bin` of weights, or the cached plan made from them.

    Raises:
        DeviceError: OpenVINO cannot read or compile the graph.

    """
    return OpenVinoSession(files, variant, threads, cache)


def _device(core: Any, variant: Variant) -> str:
    """Return the device a variant asks for, if this machine has it."""
    found = core.available_devices if variant.provider != CPU else [CPU]
    if variant.provider not in {name.partition(".")[0] for name in found}:
        raise DeviceError(
            f"openvino sees no {variant.provider} here, only {', '.join(found)}; "
            "edgepack-runtime doctor says what is missing"
        )
    return variant.provider


def _static_tokens(variant: Variant) -> tuple[int, ...]:
    found = variant.options.get("static_tokens", [])
    if not isinstance(found, list) or not all(type(size) is int and size > 0 for size in found):
        raise TrustError(
            f"variant {variant.name}: option static_tokens must be lengths, not {found!r}"
        )
    return tuple(sorted(found))


def _config(variant: Variant, threads: int) -> dict[str, Any]:
    exact = {"INFERENCE_PRECISION_HINT": "f32"} if variant.precision == "float32" else {}
    if variant.provider != CPU:
        return {"PERFORMANCE_HINT": "LATENCY", **exact}
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    return {**config, **exact}  # else bfloat16 where the CPU has it, as OpenVINO picks


def _tensor(content: memoryview) -> Any:
    """Wrap bytes without a copy; OpenVINO needs them writable, and mapped files here are."""
    import numpy as np

    array = np.frombuffer(content, dtype=np.uint8)
    return ov.Tensor(array if array.flags.writeable else array.copy(), shared_memory=True)


def _read_kept(path: Path) -> memoryview | None:
    """Read a cached plan while numpy is imported, which takes longer than hashing the plan."""
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit(kept.map_whole, path)
        import numpy as np  # noqa: F401

        return content.result()
