"""What this device is: architecture, CPU flags, memory, system.

Probes are cheap and import no engine.  Questions that an engine or a GPU driver must answer are
asked only when a variant depends on them: see `fit.py` and `gpu.py`.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from edgepack_runtime.device import cpu
from edgepack_runtime.errors import InputError
from edgepack_runtime.paths import read_text

_MOST_THREADS = 256  # thousands bring a small machine to a stop
_LARGEST_32_BIT = 2**31 - 1
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
# Jetson Linux release → JetPack (jetson-containers l4t_version.py).
_JETPACK = {"R32": "4", "R35": "5", "R36": "6", "R38": "7", "R39": "7"}


@dataclass(frozen=True)
class Device:
    """The facts that decide which variant fits."""

    arch: str
    """The architecture by its Linux name: `x86_64`, `aarch64`."""
    cpu: str
    """The model of the CPU."""
    isa: frozenset[str]
    """The flags of /proc/cpuinfo, without those that the CPU itself denies."""
    memory_mb: int
    """The memory that the kernel reports as available now; 0 if it does not report it."""
    cores: int
    """The processors that this process may use."""
    glibc: str = ""
    """A version such as `2.36`; empty if unknown."""
    jetpack: str = ""
    """A major version such as `6`; empty if unknown, or if this is not a Jetson."""
    root: Path = Path("/")
    """The file tree that was read."""

    @property
    def fingerprint(self) -> str:
        """Name the machine for a record of measurements: CPU model, cores, relevant flags."""
        return "/".join([self.arch, self.cpu, str(self.cores), *sorted(self.isa & set(_ISA))])


def probe(root: Path = Path("/")) -> Device:
    """Read the device; `root` may be a captured file tree in place of this machine's."""
    live = root == Path("/")
    info = read_text(root / "proc/cpuinfo")
    flags = frozenset((_field(info, "flags") or _field(info, "Features")).split())
    memory = _field(read_text(root / "proc/meminfo"), "MemAvailable").split()
    return Device(
        arch=_machine() if live else captured_arch(root),
        cpu=_field(info, "model name") or _field(info, "CPU part") or platform.processor(),
        isa=flags - cpu.absent() if live else flags,
        memory_mb=int(memory[0]) // 1024 if memory else 0,
        cores=cores() if live else max(1, len(re.findall(r"^processor\s*:", info, re.MULTILINE))),
        glibc=_glibc() if live else captured_glibc(root),
        jetpack=_JETPACK.get(jetson_release(root), ""),
        root=root,
    )


def cores() -> int:
    """Count the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: object) -> None:
    """Raise an `InputError` unless `threads` is None or a number that a process can start."""
    most = max(_MOST_THREADS, os.cpu_count() or 1)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= most):
        raise InputError(
            f"threads must be a whole number from 1 to {most} (this process may use {cores()} "
            f"processors), not {threads!r}; leave it out for all of them"
        )


def jetson_release(root: Path = Path("/")) -> str:
    """Return the release of Jetson Linux, such as `R36`; empty on anything else."""
    found = re.match(r"#\s*(R\d+)", read_text(root / "etc/nv_tegra_release"))
    return found[1] if found else ""


def captured_arch(root: Path) -> str:
    """Return the architecture of a file tree, by its dynamic loader; empty if it has none."""
    for pattern, arch in (
        ("ld-linux-aarch64.so*", "aarch64"),
        ("ld-linux-x86-64.so*", "x86_64"),
        ("ld-linux-armhf.so*", "armv7l"),
    ):
        if any(
            True
            for folder in ("lib", "lib64", "usr/lib", "usr/lib64")
            for _ in (root / folder).glob(pattern)
        ):
            return arch
    return ""


def captured_glibc(root: Path) -> str:
    """Read glibc's version from the library of a file tree; empty if it is not there."""
    for path in sorted(
        {
            *root.glob("lib/*/libc.so.6"),
            *root.glob("usr/lib/*/libc.so.6"),
            *root.glob("lib64/libc.so.6"),
        }
    ):
        found = re.search(rb"stable release version (\d+\.\d+)", path.read_bytes())
        if found:
            return found[1].decode()
    return ""


def _machine() -> str:
    machine = platform.machine().lower()
    if sys.maxsize <= _LARGEST_32_BIT:  # a 32-bit system on a 64-bit kernel
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _glibc() -> str:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError, AttributeError):
        return ""
    return version if name == "glibc" else ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
