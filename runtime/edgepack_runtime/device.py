"""What this machine is, read from the machine itself and never guessed.

Probes are cheap and import no engine, except `providers`, which asks ONNX Runtime.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from edgepack_runtime.manifest import Requires, Variant

_ENGINE_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "null": None}


@dataclass(frozen=True)
class Device:
    """A machine as the choice of a variant sees it.

    arch uses Linux names (`x86_64`, `aarch64`), isa the flags of /proc/cpuinfo,
    memory_mb is what the kernel says is available now, 0 if it does not say.
    """

    arch: str
    cpu: str
    isa: frozenset[str]
    memory_mb: int
    cores: int

    @property
    def fingerprint(self) -> str:
        """Name the machine for a record of measurements: CPU model, cores, ISA that matters."""
        matters = self.isa & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
        return "/".join([self.arch, self.cpu, str(self.cores), *sorted(matters)])


def probe(root: Path = Path("/")) -> Device:
    """Read the device; `root` lets a captured file tree stand in for this machine's."""
    info = _read(root / "proc/cpuinfo")
    memory = _field(_read(root / "proc/meminfo"), "MemAvailable").split()
    machine = platform.machine().lower()
    return Device(
        arch={"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine),
        cpu=_field(info, "model name") or _field(info, "CPU part") or platform.processor(),
        isa=frozenset((_field(info, "flags") or _field(info, "Features")).split()),
        memory_mb=int(memory[0]) // 1024 if memory else 0,
        cores=cores(),
    )


def cores() -> int:
    """Count the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def engine_installed(engine: str) -> bool:
    """Tell whether the engine's Python package is there, without importing it."""
    module = _ENGINE_MODULES.get(engine, engine)
    return module is None or find_spec(module) is not None


@cache
def providers() -> tuple[str, ...]:
    """List the execution providers compiled into the installed ONNX Runtime."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def why_not(variant: Variant, device: Device) -> str:
    """Say why `variant` cannot run on `device`; an empty string means that it can."""
    lacking = unmet(variant.requires, device)
    if lacking:
        return lacking
    if not engine_installed(variant.engine):
        return (
            f"{variant.engine} is not installed (pip install 'edgepack-runtime[{variant.engine}]')"
        )
    wanted = variant.provider
    on_cpu = variant.engine != "onnxruntime" or wanted == "CPUExecutionProvider"
    if not on_cpu and wanted not in providers():
        return f"the installed onnxruntime has no {wanted}"
    return ""


def unmet(requires: Requires, device: Device) -> str:
    """Say which demand `device` does not meet; an empty string if it meets all."""
    if requires.arch and device.arch not in requires.arch:
        return f"needs {' or '.join(requires.arch)}, this is {device.arch}"
    if requires.isa_any and not device.isa & set(requires.isa_any):
        return f"needs a CPU with {' or '.join(requires.isa_any)}"
    if requires.memory_mb and device.memory_mb and device.memory_mb < requires.memory_mb:
        return f"needs {requires.memory_mb} MB of memory, {device.memory_mb} MB are free"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
