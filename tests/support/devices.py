"""File trees as captured from devices: what `doctor` looks at, and little else."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

_X86 = "avx2 fma sse4_2"
_ARM = "fp asimd aes crc32 atomics fphp asimdhp asimddp"


def jetpack6(root: Path) -> Path:
    """A Jetson Orin Nano on JetPack 6.2 with NVIDIA's own onnxruntime, in good health."""
    _common(root, "Ubuntu 22.04.5 LTS", arch="aarch64", glibc="2.35", python="3.10")
    cpu(root, _ARM, "ARMv8 Processor rev 1 (v8l)", arm=True)
    write(root, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    write(root, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    write(root, "usr/local/cuda-12.6/targets/aarch64-linux/lib/libcudart.so.12", "")
    write(root, "usr/lib/aarch64-linux-gnu/libcudnn.so.9", "")
    write(root, "usr/lib/aarch64-linux-gnu/libnvinfer.so.10", "")
    packages(root, "3.10", onnxruntime_gpu="1.23.0", numpy="1.26.4", tokenizers="0.22.2")
    provider(root, "3.10", "cuda", [87], "cudart.so.12", "cudnn.so.9")
    provider(root, "3.10", "tensorrt", [], "nvinfer.so.10", "cudart.so.12")
    return root


def jetpack7(root: Path) -> Path:
    """A Jetson Thor on JetPack 7 with an onnxruntime built for it."""
    _common(root, "Ubuntu 24.04.3 LTS", arch="aarch64", glibc="2.39", python="3.12")
    cpu(root, _ARM + " sve i8mm", "Neoverse-V3AE", arm=True)
    write(root, "etc/nv_tegra_release", "# R38 (release), REVISION: 2.0, GCID: 41844464\n")
    write(root, "proc/device-tree/model", "NVIDIA Jetson AGX Thor Developer Kit\0")
    write(root, "usr/local/cuda-13.0/lib64/libcudart.so.13", "")
    write(root, "usr/lib/aarch64-linux-gnu/libcudnn.so.9", "")
    write(root, "usr/lib/aarch64-linux-gnu/libnvinfer.so.10", "")
    packages(root, "3.12", onnxruntime_gpu="1.25.1", numpy="2.4.6", tokenizers="0.22.2")
    provider(root, "3.12", "cuda", [110], "cudart.so.13", "cudnn.so.9")
    provider(root, "3.12", "tensorrt", [], "nvinfer.so.10", "cudart.so.13")
    return root


def raspberry_pi_5(root: Path) -> Path:
    """A Raspberry Pi 5 on Raspberry Pi OS 12 with the CPU engine."""
    _common(root, "Debian GNU/Linux 12 (bookworm)", arch="aarch64", glibc="2.36", python="3.11")
    cpu(root, _ARM, "Cortex-A76", arm=True)
    write(root, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(root, "usr/lib/python3.11/EXTERNALLY-MANAGED", "[externally-managed]\n")
    packages(root, "3.11", onnxruntime="1.31.1", numpy="2.4.6", tokenizers="0.22.2")
    packages(root, "3.11", edgepack_runtime="0.1.0")
    return root


def bare_x86(root: Path) -> Path:
    """A mini PC with a fresh system: nothing of ours is installed."""
    _common(root, "Debian GNU/Linux 12 (bookworm)", arch="x86_64", glibc="2.36", python="3.11")
    cpu(root, _X86 + " avx_vnni", "Intel(R) N100")
    return root


def cuda_server(root: Path) -> Path:
    """A server with an L4, CUDA 13 and the GPU wheel of PyPI."""
    _common(root, "Ubuntu 24.04.3 LTS", arch="x86_64", glibc="2.39", python="3.12")
    cpu(root, _X86 + " avx512f avx512_vnni", "Intel(R) Xeon(R) Gold 6430")
    gpu(root, "NVIDIA L4", "580.65.06")
    write(root, "usr/local/cuda-13.0/lib64/libcudart.so.13", "")
    write(root, "usr/lib/x86_64-linux-gnu/libcudnn.so.9", "")
    write(root, "usr/lib/x86_64-linux-gnu/libnvinfer.so.10", "")
    packages(root, "3.12", onnxruntime_gpu="1.31.1", numpy="2.4.6", tokenizers="0.22.2")
    provider(root, "3.12", "cuda", [75, 80, 86, 89, 90, 120], "cudart.so.13")
    provider(root, "3.12", "tensorrt", [], "nvinfer.so.10", "cudart.so.13", "cudnn.so.9")
    return root


def write(root: Path, name: str, text: str) -> None:
    """Write a file of the tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cpu(root: Path, flags: str, name: str, *, arm: bool = False) -> None:
    """Write /proc/cpuinfo."""
    words = ("CPU part", "Features") if arm else ("model name", "flags")
    text = f"processor\t: 0\n{words[0]}\t: {name}\n{words[1]}\t: {flags}\n\nprocessor\t: 1\n"
    write(root, "proc/cpuinfo", text)


def gpu(root: Path, name: str, driver: str) -> None:
    """Write what NVIDIA's kernel driver shows."""
    write(root, "proc/driver/nvidia/gpus/0000:01:00.0/information", f"Model: \t\t {name}\nIRQ: 1\n")
    text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sun Jul 27 2025\n"
    write(root, "proc/driver/nvidia/version", text)


def packages(root: Path, python: str, **versions: str) -> None:
    """Install packages, by their names with underscores: metadata folders only."""
    for name, version in versions.items():
        write(root, f"{site(python)}/{name}-{version}.dist-info/METADATA", f"Name: {name}\n")


def remove(root: Path, python: str, name: str) -> None:
    """Uninstall a package."""
    for path in (root / site(python)).glob(f"{name}-*.dist-info"):
        (path / "METADATA").unlink()
        path.rmdir()


def provider(root: Path, python: str, name: str, cubins: Sequence[int], *needs: str) -> None:
    """Write a provider library: fat binaries for `cubins`, and the names of what it links to."""
    write(root, f"{site(python)}/onnxruntime/__init__.py", "")
    path = root / site(python) / f"onnxruntime/capi/libonnxruntime_providers_{name}.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = b"".join(
        struct.pack("<HHIQIIHHI", 2, 0x101, 64, 16, 0, 0, 7, 1, sm).ljust(64, b"\0") + b"c" * 16
        for sm in cubins
    )
    fat = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries if cubins else b""
    links = b"".join(b"\0lib%s\0" % need.encode() for need in needs)
    path.write_bytes(b"\x7fELF" + links + b"text" * 5 + fat + b"rest")


def capture(root: Path, **facts: int) -> None:
    """Write what no file of a tree says."""
    write(root, "capture.json", json.dumps(facts))


def site(python: str) -> str:
    """Return the folder of packages of a Python."""
    return f"usr/local/lib/python{python}/dist-packages"


def _common(root: Path, release: str, *, arch: str, glibc: str, python: str) -> None:
    write(root, "etc/os-release", f'PRETTY_NAME="{release}"\nID=x\n')
    write(root, "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    loader = {"aarch64": "lib/ld-linux-aarch64.so.1", "x86_64": "lib64/ld-linux-x86-64.so.2"}[arch]
    write(root, loader, "")
    text = f"GNU C Library (Debian GLIBC {glibc}) stable release version {glibc}.\n"
    write(root, f"usr/lib/{arch}-linux-gnu/libc.so.6", text)
    write(root, f"usr/bin/python{python}", "")
    capture(root, disk_free_mb=20000)
