"""ONNX Runtime: CPU everywhere, CUDA and TensorRT where the installed build has them.

Thread spinning is off: an idle model uses no CPU.  The provider the variant asks for
must be the one that is taken; ONNX Runtime's own silent fall back to the CPU is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort  # noqa: TID253 (only imported when a bundle needs it)

from edgepack_runtime.errors import DeviceError, TrustError
from edgepack_runtime.manifest import Variant

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_CPU = "CPUExecutionProvider"
_ERROR_ONLY = 3
# What a manifest may set.  Others name libraries to load and paths to write.
_PROVIDER_OPTIONS = {
    "trt_engine_cache_enable",
    "trt_timing_cache_enable",
    "trt_fp16_enable",
    "trt_int8_enable",
    "trt_cuda_graph_enable",
    "trt_builder_optimization_level",
}


class OrtSession:
    """One `onnxruntime.InferenceSession`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._dtypes = {
            item.name: "int32" if "int32" in item.type else "int64" for item in session.get_inputs()
        }
        self.inputs = tuple(self._dtypes)
        self.provider = str(session.get_providers()[0])

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`: shapes cost nothing here, padding would."""
        return tokens

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run int64 arrays [rows, width]."""
        typed = {k: feeds[k].astype(self._dtypes[k], copy=False) for k in self.inputs}
        try:
            return list(self._session.run(None, typed))
        except Exception as exc:
            rows, width = feeds["input_ids"].shape
            raise DeviceError(f"onnxruntime fails on {rows}×{width} tokens: {exc}") from exc


def open_session(
    files: Mapping[str, memoryview],
    variant: Variant,
    threads: int,
    cache: Path | None,  # noqa: ARG001 (the Engine protocol)
) -> OrtSession:
    """Load `model.onnx` on the variant's provider.

    Raises:
        DeviceError: the graph does not load, or the provider was not taken.
        TrustError: the manifest sets an option of the provider that it may not.

    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights that stand outside of the graph would be files that nobody hashed.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", "/nonexistent"
    )
    providers: list[Any] = [(variant.provider, _provider_options(variant))]
    if variant.provider != _CPU:
        providers.append(_CPU)
    content = bytes(files["model.onnx"])
    try:
        session = ort.InferenceSession(content, options, providers=providers)
    except Exception as exc:
        raise DeviceError(f"onnxruntime {ort.__version__} cannot load the graph: {exc}") from exc
    if session.get_providers()[0] != variant.provider:
        raise DeviceError(
            f"asked for {variant.provider}, got {session.get_providers()[0]}; "
            "see edgepack-runtime doctor"
        )
    return OrtSession(session)


def _provider_options(variant: Variant) -> dict[str, str]:
    wanted = variant.options.get("provider_options", {})
    if not isinstance(wanted, dict) or not all(isinstance(v, str) for v in wanted.values()):
        raise TrustError(f"variant {variant.name}: provider_options must be texts, not {wanted!r}")
    if unknown := sorted(set(wanted) - _PROVIDER_OPTIONS):
        raise TrustError(f"variant {variant.name} sets {unknown[0]!r}, which no bundle may")
    return wanted
