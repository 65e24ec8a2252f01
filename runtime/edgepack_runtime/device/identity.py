"""What a measurement or a compiled plan belongs to: this machine, its drivers, its engines."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from edgepack_runtime import engines
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device.facts import Device
from edgepack_runtime.device.gpu import driver_version, find_gpu

_SHOWN = 16
_TENSORRT_MAJORS = (11, 10)


def identity(device: Device) -> str:
    """Name a machine with its GPU driver and the versions of its engines, in one line."""
    parts = [device.fingerprint]
    if driver := driver_version(device.root):
        parts.append(f"driver {driver}")
    versions = {name: engine_version(name) for name in engines.known()}
    return " | ".join([*parts, *(f"{name} {found}" for name, found in versions.items() if found)])


def compiled_for(variant: Variant, device: Device) -> str:
    """Hash what the compiled form of a variant depends on, for the name of a folder.

    For the CPU, that is its model and flags; for a GPU or NPU, the driver and the libraries.  The
    number of processors is left out: a service may be bound to fewer than the shell that prepared
    it.
    """
    parts = [variant.engine, engine_version(variant.engine), variant.provider]
    if variant.on_cpu:
        parts.append(device.fingerprint.replace(f"/{device.cores}/", "/", 1))
    else:
        gpu = find_gpu(device.root)
        parts += [gpu.name if gpu else device.cpu, driver_version(device.root)]
    if variant.provider == "TensorrtExecutionProvider":
        parts.append(str(tensorrt_version()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_SHOWN]


def engine_version(engine: str) -> str:
    """Return the version of an installed engine; empty if it is not there.

    It is read from the name of the metadata folder: `importlib.metadata` takes a tenth of a cold
    start.
    """
    spec = find_spec(engine) if engine in engines.known() else None
    if spec is None or not spec.origin:
        return ""
    for path in sorted(Path(spec.origin).parents[1].glob(f"{engine}*.dist-info")):
        name, _, version = path.stem.partition("-")
        if name in (engine, f"{engine}_gpu"):
            return version
    return ""


@cache
def tensorrt_version() -> int:
    """Return the version of the TensorRT library that would be loaded, such as 101602; 0 for none.

    An engine built by another version does not load, and ONNX Runtime's own cache names it by the
    version that ONNX Runtime was compiled with, not by the one that runs.
    """
    import ctypes

    for major in _TENSORRT_MAJORS:
        try:
            return int(ctypes.CDLL(f"libnvinfer.so.{major}").getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return 0
