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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Stateless, only, whole_number
from edgepack_runtime.engines import _kept as kept
from edgepack_runtime.engines import _ov as binding
from edgepack_runtime.engines._batching import mixes
from edgepack_runtime.engines._ov import ov
from edgepack_runtime.engines._ov_plans import Lanes, Plan
from edgepack_runtime.errors import DeviceError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_DYNAMIC = 0
CPU = "CPU"
_FULL_NAME = "FULL_DEVICE_NAME"
_log = logging.getLogger(__name__)


class OpenVinoSession(Stateless):
    """One model, compiled once for each plan.

    Attributes:
        provider: the device, `CPU`, `GPU` or `NPU`.  OpenVINO runs a whole graph on the device it
            was compiled for, or fails.

    """

    def __init__(
        self, files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
    ) -> None:
        self._core = binding.core(os.getpid())
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
        self._lanes: dict[int, Lanes | None] = {}
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
        """Run each row on the plan that it has alone; side by side if there are threads for it."""
        import numpy as np

        count, tokens = feeds["input_ids"].shape
        with self._lock:
            if tokens not in self._lanes:
                self._lanes[tokens] = self._make_lanes(tokens, feeds)
            try:
                if (lanes := self._lanes[tokens]) is not None:
                    return lanes.run(feeds)
            except RuntimeError as exc:
                raise DeviceError(f"openvino fails on {count}×{tokens} tokens: {exc}") from exc
        rows = [self.run({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.outputs}

    def _make_lanes(self, tokens: int, feeds: Mapping[str, Array]) -> Lanes | None:
        """Compile a plan for rows side by side; None if it would not give the same answers."""
        threads = self._config.get("INFERENCE_NUM_THREADS", 1)
        if threads == 1:
            return None
        if tokens not in self._plans:
            self._plans[tokens] = self._plan(tokens)
        config = {**self._config, "NUM_STREAMS": threads}
        lanes = Lanes(*self._compiled(tokens, config), threads)
        row = {name: array[:1] for name, array in feeds.items()}
        pairs = zip(self._plans[tokens].run(row).values(), lanes.run(row).values(), strict=True)
        return lanes if all((a == b).all() for a, b in pairs) else None

    def _plan(self, tokens: int) -> Plan:
        return Plan(*self._compiled(tokens, self._config))

    def _compiled(self, tokens: int, config: Mapping[str, Any]) -> tuple[Any, Any]:
        """Take a plan from the cache, or compile and cache it; return it with its memory."""
        path = self._path(tokens, config)
        if path is not None and (content := _read_kept(path)) is not None:
            with suppress(RuntimeError):  # cached by a build that only looked the same
                blob = binding.tensor(content)
                return self._core.import_model(blob, self.provider, config), blob
        compiled = self._compile(tokens, config)
        if path is not None:
            try:
                kept.write(path, compiled.export_model().getvalue())
            except (OSError, RuntimeError) as exc:  # some devices cannot export
                _log.info("the compiled model is not cached: %s", exc)
        return compiled, self._weights

    def _compile(self, tokens: int, config: Mapping[str, Any]) -> Any:
        try:
            model = self._model
            if tokens != _DYNAMIC:
                model = model.clone()
                model.reshape({item: [1, tokens] for item in model.inputs})
            return self._core.compile_model(model, self.provider, config)
        except RuntimeError as exc:
            raise DeviceError(f"openvino cannot load the graph: {exc}") from exc

    @cached_property
    def _model(self) -> Any:
        name = only(self._files, ".xml")
        graph = bytes(self._files[name])
        if not graph.startswith((b"<?xml", b"<net")):  # a graph in ONNX may name any file
            raise TrustError(f"{name} is not OpenVINO's own XML; build the bundle again")
        self._weights = binding.tensor(self._files[only(self._files, ".bin")])
        return self._core.read_model(graph, self._weights)

    def _path(self, tokens: int, config: Mapping[str, Any]) -> Path | None:
        """Name the file of a plan; it depends on the OpenVINO version, the device and settings."""
        if self._cache is None:
            return None
        identity = [ov.get_version(), str(sorted(config.items()))]
        if self.provider != CPU:
            identity += [self.provider, str(self._core.get_property(self.provider, _FULL_NAME))]
        key = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
        return self._cache / f"openvino-{tokens}-{key}.blob"


def providers() -> tuple[str, ...]:
    """List OpenVINO's devices; a kind may be listed more than once."""
    return tuple(name.partition(".")[0] for name in binding.core(os.getpid()).available_devices)


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


def _read_kept(path: Path) -> memoryview | None:
    """Read a cached plan while numpy is imported, which takes longer than hashing the plan."""
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit(kept.map_whole, path)
        import numpy as np  # noqa: F401

        return content.result()
