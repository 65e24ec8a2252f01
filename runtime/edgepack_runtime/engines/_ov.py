"""OpenVINO's own binding, its core, and tensors over memory that somebody else owns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    with _package():
        return import_module("openvino._pyopenvino")


@contextmanager
def _package() -> Iterator[None]:
    """Have an `openvino` in `sys.modules`: the package itself if it was imported, else a stand-in.

    Raises:
        ImportError: OpenVINO is not installed.

    """
    if "openvino" in sys.modules:
        yield
        return
    spec = find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("no package openvino")
    package: Any = ModuleType("openvino")
    package.__path__ = list(spec.submodule_search_locations)
    package.Model = _Model
    sys.modules["openvino"] = package
    try:
        yield
    finally:
        if sys.modules.get("openvino") is package:
            del sys.modules["openvino"]


class _Model:
    """Stands for `openvino.Model`, which some functions of the binding want."""

    def __init__(self, model: Any) -> None:
        self._Model__model = model


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


def page(model: Any) -> None:
    """Move the keys and values of a decoder from inside the graph to inputs, in blocks.

    Raises:
        RuntimeError: the graph holds none, or in a form that OpenVINO does not know.

    """
    with _package():
        whole = sys.modules["openvino"].Model(model)
        ov._offline_transformations.paged_attention_transformation(whole)  # noqa: SLF001
