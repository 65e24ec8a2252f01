"""OpenVINO's own binding, its core, and tensors over memory that somebody else owns."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


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
def core(process: int) -> Any:  # noqa: ARG001 (a fork needs one of its own)
    """Return the one core of a process; a second one would load every plug-in again."""
    return ov.Core()


def tensor(content: memoryview) -> Any:
    """Wrap bytes without a copy; OpenVINO needs them writable, and mapped files here are."""
    import numpy as np

    array = np.frombuffer(content, dtype=np.uint8)
    return ov.Tensor(array if array.flags.writeable else array.copy(), shared_memory=True)
