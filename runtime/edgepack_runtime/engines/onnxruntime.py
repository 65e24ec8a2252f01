"""ONNX Runtime: CPU everywhere, CUDA and TensorRT where the installed build has them.

Thread spinning is off: an idle model uses no CPU.  The provider the variant asks for
must be the one that is taken; ONNX Runtime's own silent fall back to the CPU is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort  # noqa: TID253 (only imported when a bundle needs it)

from edgepack_runtime.errors import DeviceError
from edgepack_runtime.manifest import Variant

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_CPU = "CPUExecutionProvider"
_ERROR_ONLY = 3


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
        return list(self._session.run(None, typed))


def open_session(
    files: Mapping[str, memoryview],
    variant: Variant,
    threads: int,
    cache: Path | None,  # noqa: ARG001 (the Engine protocol)
) -> OrtSession:
    """Load `model.onnx` on the variant's provider.

    Raises:
        DeviceError: the graph does not load, or the provider was not taken.

    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [(variant.provider, dict(variant.options.get("provider_options", {})))]
    if variant.provider != _CPU:
        providers.append(_CPU)
    try:
        session = ort.InferenceSession(bytes(files["model.onnx"]), options, providers=providers)
    except Exception as exc:
        raise DeviceError(f"onnxruntime {ort.__version__} cannot load the graph: {exc}") from exc
    if session.get_providers()[0] != variant.provider:
        raise DeviceError(
            f"asked for {variant.provider}, got {session.get_providers()[0]}; "
            "see edgepack-runtime doctor"
        )
    return OrtSession(session)
