"""What the doctor examines: releases, drivers, libraries and Python packages of a device.

Everything is read below a root folder, so that a captured file tree (a mounted SD card, a copy
sent to support) is examined like the device itself.  `capture.json` in that root may hold what no
file shows: {"disk_free_mb": 812}.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepack_runtime.device.facts import Device, jetson_release, probe
from edgepack_runtime.device.gpu import Gpu, driver_version, find_gpu
from edgepack_runtime.doctor import fatbin
from edgepack_runtime.paths import free_bytes, read_text

_PACKAGES = (
    "usr/lib/python3*/dist-packages",
    "usr/lib/python3*/site-packages",
    "usr/local/lib/python3*/dist-packages",
    "usr/local/lib/python3*/site-packages",
    "opt/*/lib/python3*/site-packages",
    "opt/*/venv/lib/python3*/site-packages",
    "home/*/*/lib/python3*/site-packages",
    "root/*/lib/python3*/site-packages",
)
_LIBRARIES = (
    "usr/lib/*-linux-gnu",
    "usr/lib",
    "usr/lib64",
    "usr/local/cuda*/lib64",
    "usr/local/cuda*/targets/*/lib",
    "usr/local/lib",
    "opt/*/lib",
    "opt/conda/lib",
)
_INTEL = "0x8086"
_WANTED = re.compile(r"lib(cudart|cudnn|nvinfer|cublas)\.so\.(\d+)")


@dataclass(frozen=True)
class Provider:
    """A GPU library inside an installed ONNX Runtime."""

    cubins: frozenset[int] = frozenset()
    """Compute capabilities that it has machine code for, such as 87."""
    ptx: frozenset[int] = frozenset()
    """Compute capabilities that it has PTX for."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """{library: major version} of the libraries it is linked to."""


@dataclass(frozen=True)
class System:
    """A device as the doctor sees it."""

    device: Device
    """The facts that decide which variant fits."""
    release: str
    """The name of the operating system's release."""
    board: str
    """The model of the board, from its device tree."""
    jetson: str
    """The release of Jetson Linux; empty on anything else."""
    gpu: Gpu | None
    """The first NVIDIA GPU."""
    driver: str
    """The version of the NVIDIA kernel driver."""
    python: str
    """The version of the interpreter that runs, or of the captured system's."""
    managed: bool
    """The system's Python refuses pip install (PEP 668)."""
    packages: Mapping[str, str]
    """{name: version} of the Python packages."""
    libraries: Mapping[str, frozenset[str]]
    """{cudart, cudnn, nvinfer, cublas: major versions found}."""
    providers: Mapping[str, Provider]
    """The `cuda` and `tensorrt` providers of the installed ONNX Runtime."""
    memory_mb: int
    """Total memory."""
    disk_mb: int | None
    """Free disk space; None if unknown."""
    devices: frozenset[str]
    """What was found of Intel's GPU and NPU: device files and user drivers."""


def examine(root: Path = Path("/")) -> System:
    """Read a device, or a file tree captured from one."""
    folders = _package_folders(root)
    memory = re.search(r"MemTotal:\s*(\d+)", read_text(root / "proc/meminfo"))
    release = re.search(
        r'^PRETTY_NAME="?([^"\n]*)', read_text(root / "etc/os-release"), re.MULTILINE
    )
    return System(
        device=probe(root),
        release=release[1] if release else "",
        board=read_text(root / "proc/device-tree/model").strip("\0\n "),
        jetson=jetson_release(root),
        gpu=find_gpu(root),
        driver=driver_version(root),
        python=_python(root),
        managed=any(True for _ in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED")),
        packages=dict(_installed(folders[::-1])),  # of two versions, Python imports the first
        libraries=_libraries(root, folders),
        providers=_providers(folders),
        memory_mb=int(memory[1]) // 1024 if memory else 0,
        disk_mb=_disk(root),
        devices=frozenset(_device_files(root)),
    )


def _package_folders(root: Path) -> list[Path]:
    if root == Path("/"):
        return [Path(name) for name in sys.path if Path(name).is_dir()]
    return [path for pattern in _PACKAGES for path in sorted(root.glob(pattern))]


def _installed(folders: list[Path]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in [*folder.glob("*.dist-info"), *folder.glob("*.egg-info")]:
            name, _, version = path.name.rpartition(".")[0].partition("-")
            yield name.lower().replace("_", "-"), version.partition("-")[0]


def _libraries(root: Path, folders: list[Path]) -> dict[str, frozenset[str]]:
    """Find CUDA's libraries in the system and in NVIDIA's own Python packages."""
    places = [path for pattern in _LIBRARIES for path in root.glob(pattern)]
    places += [
        path
        for folder in folders
        for pattern in ("nvidia/*/lib", "tensorrt_libs")
        for path in folder.glob(pattern)
    ]
    if root == Path("/"):
        places += [Path(name) for name in os.environ.get("LD_LIBRARY_PATH", "").split(":") if name]
    found: dict[str, set[str]] = {}
    for place in places:
        for path in place.glob("lib*.so.*"):
            if match := _WANTED.match(path.name):
                found.setdefault(match[1], set()).add(match[2])
    return {name: frozenset(majors) for name, majors in found.items()}


def _providers(folders: list[Path]) -> dict[str, Provider]:
    found = {}
    for folder in folders:
        for name in ("cuda", "tensorrt"):
            path = folder / f"onnxruntime/capi/libonnxruntime_providers_{name}.so"
            if path.is_file() and name not in found:
                found[name] = Provider(*fatbin.architectures(path), fatbin.needed(path))
    return found


def _python(root: Path) -> str:
    if root == Path("/"):
        return platform.python_version()
    found = [path.name.removeprefix("python") for path in root.glob("usr/bin/python3.*")]
    versions = [name for name in found if re.fullmatch(r"3\.\d+", name)]
    return max(versions, key=lambda name: int(name.partition(".")[2]), default="")


def _disk(root: Path) -> int | None:
    if root == Path("/"):
        return free_bytes(Path.cwd()) // (1 << 20)
    try:
        value = json.loads((root / "capture.json").read_text())["disk_free_mb"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if type(value) is int else None


def _device_files(root: Path) -> Iterator[str]:
    """Name what is present for Intel's GPU and NPU: their device files and user drivers."""
    vendors = (
        read_text(path).strip() for path in root.glob("sys/class/drm/renderD*/device/vendor")
    )
    if _INTEL in vendors:
        yield "intel-gpu"
    for name, pattern in (
        ("intel-npu", "dev/accel/accel*"),
        ("opencl-intel", "etc/OpenCL/vendors/intel*.icd"),
        ("ze-intel-npu", "usr/lib/*/libze_intel_npu.so*"),
    ):
        if any(True for _ in root.glob(pattern)):
            yield name
