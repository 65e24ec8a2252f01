"""What a measurement or a compiled plan belongs to: this machine, its drivers, its engines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgepack_runtime.device import Device
from edgepack_runtime.gpu import driver_version

ENGINES = ("onnxruntime", "openvino")
_SHOWN = 16


def identity(device: Device, engines: Sequence[str] = ENGINES) -> str:
    """Name a machine with its GPU driver and the versions of its engines, in one line."""
    parts = [device.fingerprint]
    if driver := driver_version(device.root):
        parts.append(f"driver {driver}")
    return " | ".join([*parts, *(f"{name} {engine_version(name)}" for name in engines)])


def short(device: Device, engine: str) -> str:
    """Hash the identity for one engine, for the name of a folder."""
    return hashlib.sha256(identity(device, (engine,)).encode()).hexdigest()[:_SHOWN]


def engine_version(engine: str) -> str:
    """Return the version of an installed engine; empty if it is not there.

    Read off the name of its metadata folder: `importlib.metadata` is a tenth of a cold start.
    """
    spec = find_spec(engine) if engine in ENGINES else None
    if spec is None or not spec.origin:
        return ""
    for path in sorted(Path(spec.origin).parents[1].glob(f"{engine}*.dist-info")):
        name, _, version = path.stem.partition("-")
        if name in (engine, f"{engine}_gpu"):
            return version
    return ""
