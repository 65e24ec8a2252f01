"""ONNX Runtime: CPU everywhere, CUDA and TensorRT where the installed build has them.

Thread spinning is off, so an idle model uses no CPU.  The provider that the variant asks for must
take every operator that costs time; ONNX Runtime's silent fallback to the CPU is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort  # noqa: TID253 (only imported when a bundle needs it)

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import State, Stateless
from edgepack_runtime.engines import _placement as placement
from edgepack_runtime.engines._ort_open import CPU, open_on_cpu, options_for, read
from edgepack_runtime.engines._ort_open import make as open_with
from edgepack_runtime.engines._ort_rows import OrtRows
from edgepack_runtime.engines._ort_state import OrtState, is_held, is_shared
from edgepack_runtime.errors import DeviceError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_TENSORRT = "TensorrtExecutionProvider"
_LAST_WITH_FLAGS = 10  # TensorRT 11 takes the precision from the graph alone
# The options that a manifest may set.  Others name libraries to load and paths to write.
_PROVIDER_OPTIONS = {
    "trt_engine_cache_enable",
    "trt_timing_cache_enable",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
    "trt_cuda_graph_enable",
    "trt_builder_optimization_level",
}


class OrtSession:
    """One `onnxruntime.InferenceSession`.

    Attributes:
        placement: {provider: nodes}; empty for a CPU variant, where it is always the CPU.

    """

    def __init__(
        self, session: ort.InferenceSession, placed: Mapping[str, int], mapped: object = None
    ) -> None:
        self._session = session
        self._mapped = mapped  # it must outlive the session
        self.placement = dict(placed)
        self._dtypes = {item.name: _dtype(item.type) for item in session.get_inputs()}
        self._stateful = any(is_held(name) for name in self._dtypes)
        self.inputs = tuple(name for name in self._dtypes if not is_held(name))
        names = [item.name for item in session.get_outputs()]
        self.outputs = tuple(name for name in names if not is_held(name))
        self.provider = str(session.get_providers()[0])

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`: a new shape costs nothing here, but padding would."""
        return tokens

    def compile_all(self) -> None:
        """Do nothing: TensorRT's engine covers every shape that the runtime sends."""

    def begin(self, capacity: int) -> State:
        """Open a state of the graph's keys and values, if it has such."""
        if not self._stateful:
            return Stateless().begin(capacity)
        kind = OrtState if is_shared(self._dtypes) else OrtRows
        return kind(self._session, capacity)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on arrays by name, cast to the types that the graph takes."""
        typed = {k: feeds[k].astype(self._dtypes[k], copy=False) for k in self.inputs}
        try:
            return dict(zip(self.outputs, self._session.run(None, typed), strict=True))
        except Exception as exc:
            shape = "×".join(map(str, typed[self.inputs[0]].shape))
            raise DeviceError(f"onnxruntime fails on an input of {shape}: {exc}") from exc


def _dtype(declared: str) -> str:
    """Return numpy's name for a type such as ONNX Runtime's `tensor(float)`."""
    name = declared.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def providers() -> tuple[str, ...]:
    """List the execution providers of the installed build."""
    return tuple(ort.get_available_providers())


def open_session(
    files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
) -> OrtSession:
    """Load the one `.onnx` file on the variant's provider.

    Raises:
        DeviceError: the graph does not load, or the provider did not take it.
        TrustError: the manifest sets a provider option that it may not set, or the graph names
            external files.

    """
    checked = _provider_options(variant, cache)
    if variant.provider == CPU:
        session, mapped = open_on_cpu(files, threads, cache)
        return OrtSession(session, {}, mapped)
    providers = [(variant.provider, checked), CPU]
    source = read(files)

    def make(profile: str = "") -> ort.InferenceSession:
        options = options_for(threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.enable_profiling = bool(profile)
        if profile:
            options.profile_file_prefix = profile
        return open_with(source, options, providers)

    _preload()
    session = make()
    if session.get_providers()[0] != variant.provider:
        raise DeviceError(
            f"asked for {variant.provider}, got {session.get_providers()[0]}; "
            "see edgepack-runtime doctor"
        )
    placed = placement.assigned(session) or _profiled(make, cache)
    if strays := placement.strays(placed, variant.provider):
        listed = ", ".join(f"{count} {what}" for what, count in strays.items())
        raise DeviceError(
            f"{variant.provider} did not take the graph: {listed}; "
            "edgepack-runtime doctor says what is missing"
        )
    return OrtSession(session, placement.totals(placed), source.weights)


def _preload() -> None:
    """Load CUDA's libraries from NVIDIA's Python packages, which the loader does not search."""
    if hasattr(ort, "preload_dlls"):  # since 1.21
        with redirect_stdout(StringIO()):
            ort.preload_dlls(directory="")


def _profiled(make: Callable[[str], Any], cache: Path | None) -> placement.Placement:
    """Profile one run, or use an earlier profile of the same graph on the same machine."""
    kept = cache / "placement.json" if cache else None
    if kept is not None and (found := placement.read(kept)) is not None:
        return found
    try:
        found = placement.profiled(make, _run_once)
    except DeviceError:
        raise
    except Exception as exc:
        raise DeviceError(f"onnxruntime {ort.__version__} fails on its first run: {exc}") from exc
    if kept is not None:
        with suppress(OSError):
            placement.write(kept, found)
    return found


def _run_once(session: ort.InferenceSession) -> None:
    import numpy as np

    session.run(
        None, {item.name: np.ones((1, 8), _dtype(item.type)) for item in session.get_inputs()}
    )


def _provider_options(variant: Variant, cache: Path | None) -> dict[str, str]:
    """Return the manifest's options, and those that depend on the device."""
    wanted = variant.options.get("provider_options", {})
    if not isinstance(wanted, dict) or not all(isinstance(v, str) for v in wanted.values()):
        raise TrustError(
            f"variant {variant.name}: provider_options must be strings, not {wanted!r}"
        )
    if unknown := sorted(set(wanted) - _PROVIDER_OPTIONS):
        raise TrustError(f"variant {variant.name} sets {unknown[0]!r}, which no bundle may set")
    if variant.provider != _TENSORRT:
        return wanted
    ours: dict[str, str] = {}
    if cache is not None:
        with suppress(OSError):  # a read-only system compiles each time
            cache.mkdir(parents=True, exist_ok=True)
            ours |= {"trt_engine_cache_path": str(cache), "trt_timing_cache_path": str(cache)}
    if tensorrt_major() <= _LAST_WITH_FLAGS and variant.precision != "float32":
        ours["trt_fp16_enable"] = "1"
        if variant.precision == "int8":
            ours["trt_int8_enable"] = "1"
    return {**wanted, **ours}


def tensorrt_major() -> int:
    """Return the TensorRT major version that the installed provider is linked to, else 10."""
    library = Path(ort.__file__).parent / "capi/libonnxruntime_providers_tensorrt.so"
    try:
        found = re.search(rb"libnvinfer\.so\.(\d+)", library.read_bytes())
    except OSError:
        return _LAST_WITH_FLAGS
    return int(found[1]) if found else _LAST_WITH_FLAGS
