"""The device half of edgepack: load a bundle, answer like `transformers.pipeline`.

Importing this package is instant: neither numpy nor an inference engine is loaded
until a bundle is.  It never imports torch, transformers, optimum or onnx.

    import edgepack_runtime as er

    model = er.load("intent.epk")
    model("turn on the lights")   # [{"label": "lights_on", "score": 0.98}]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import (
    BudgetError,
    DeviceError,
    EdgepackError,
    HostError,
    InputError,
    NothingToDoError,
    SelfTestError,
    TrustError,
)

if TYPE_CHECKING:
    from edgepack_runtime.bundle.bundle import Bundle
    from edgepack_runtime.generation.memory import Memory
    from edgepack_runtime.model.follow import follow
    from edgepack_runtime.model.load import load
    from edgepack_runtime.model.model import Model

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "Bundle",
    "DeviceError",
    "EdgepackError",
    "HostError",
    "InputError",
    "Memory",
    "Model",
    "NothingToDoError",
    "SelfTestError",
    "TrustError",
    "__version__",
    "follow",
    "load",
]

_LAZY = {
    "load": "edgepack_runtime.model.load",
    "Model": "edgepack_runtime.model.model",
    "follow": "edgepack_runtime.model.follow",
    "Bundle": "edgepack_runtime.bundle.bundle",
    "Memory": "edgepack_runtime.generation.memory",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        from edgepack_runtime.gc_pause import collector_paused

        with collector_paused():
            return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
