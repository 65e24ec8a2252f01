"""From the files of an OpenVINO model to a compiled one, through the cache."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import _kept as kept
from edgepack_runtime.engines import _ov as binding
from edgepack_runtime.engines import only
from edgepack_runtime.engines._ov import ov
from edgepack_runtime.errors import DeviceError, TrustError

CPU = "CPU"
DYNAMIC = 0
"""Tokens of a plan that takes any number of them."""
_FULL_NAME = "FULL_DEVICE_NAME"
_log = logging.getLogger(__name__)


class Compiler:
    """Compiles the one `.xml` file and its `.bin` of weights, for one device."""

    def __init__(
        self, files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
    ) -> None:
        self._core = binding.core(os.getpid())
        self._files = files
        self._cache = cache
        self.provider = _device(self._core, variant)
        self.config = _config(variant, threads)
        self._process = os.getpid()

    def refuse_after_fork(self) -> None:
        """Raise an error instead of waiting for ever: a fork does not copy OpenVINO's threads."""
        if os.getpid() != self._process:
            raise DeviceError(
                "this process was forked after the model was loaded, and a fork does not have "
                "OpenVINO's threads: load the model in each worker (gunicorn without --preload, "
                "multiprocessing with the spawn method), or pick a variant of onnxruntime"
            )

    def compiled(self, tokens: int, config: Mapping[str, Any]) -> tuple[Any, Any]:
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

    def compiled_after(
        self, change: Callable[[Any], None], config: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Change the graph and compile it; return it with its memory.

        It is not cached: OpenVINO cannot read a compiled graph with paged attention.
        """
        try:
            change(self._model)
            return self._core.compile_model(self._model, self.provider, config), self._weights
        except (RuntimeError, AttributeError) as exc:
            raise DeviceError(f"openvino cannot load the graph: {exc}") from exc

    def usual_type(self) -> str:
        """Name the type that OpenVINO runs a graph in on this device, such as `bf16`."""
        return str(self._core.get_property(self.provider, "INFERENCE_PRECISION_HINT").to_string())

    def _compile(self, tokens: int, config: Mapping[str, Any]) -> Any:
        try:
            model = self._model
            if tokens != DYNAMIC:
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


def _device(core: Any, variant: Variant) -> str:
    """Return the device a variant asks for, if this machine has it."""
    found = core.available_devices if variant.provider != CPU else [CPU]
    if variant.provider not in {name.partition(".")[0] for name in found}:
        raise DeviceError(
            f"openvino sees no {variant.provider} here, only {', '.join(found)}; "
            "edgepack-runtime doctor says what is missing"
        )
    return variant.provider


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
