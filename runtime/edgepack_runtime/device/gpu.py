"""Which NVIDIA GPU a machine has, according to the driver or to the kernel's files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgepack_runtime.paths import read_text

# Compute capability by words of a GPU's name; the first match counts.  NVIDIA CUDA GPUs table.
_BY_NAME = (
    ("Quadro RTX", "7.5"),
    ("RTX 4000 Ada", "8.9"),
    ("RTX 5000 Ada", "8.9"),
    ("RTX 6000 Ada", "8.9"),
    ("RTX 2000 Ada", "8.9"),
    ("RTX 4500 Ada", "8.9"),
    ("Thor", "11.0"),
    ("Orin", "8.7"),
    ("Xavier", "7.2"),
    ("RTX 50", "12.0"),
    ("RTX PRO", "12.0"),
    ("RTX 40", "8.9"),
    ("RTX 30", "8.6"),
    ("RTX A", "8.6"),
    ("RTX 20", "7.5"),
    ("B200", "10.0"),
    ("H200", "9.0"),
    ("H100", "9.0"),
    ("L40", "8.9"),
    ("L4", "8.9"),
    ("A100", "8.0"),
    ("A30", "8.0"),
    ("A10", "8.6"),
    ("A16", "8.6"),
    ("A2", "8.6"),
    ("T4", "7.5"),
    ("V100", "7.0"),
    ("P100", "6.0"),
    ("GTX 16", "7.5"),
    ("GTX 10", "6.1"),
)
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_NAME_BYTES = 128


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    """The vendor's name for it."""
    compute_capability: str
    """Such as `8.7`; empty if unknown."""


@cache
def find_gpu(root: Path = Path("/")) -> Gpu | None:
    """Return the first NVIDIA GPU; None if there is none.

    This machine's CUDA driver is asked; in a captured `root`, only names are known.
    """
    if root == Path("/") and (found := _ask_driver()):
        return found
    for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        model = re.search(r"Model:\s*(.+)", read_text(path))
        if model:
            return Gpu(model[1].strip(), capability_of(model[1]))
    board = read_text(root / "proc/device-tree/model").strip("\0\n ")
    return Gpu(board, capability_of(board)) if "NVIDIA" in board or "Jetson" in board else None


def capability_of(name: str) -> str:
    """Return the compute capability of a GPU or board by its name; empty if unknown."""
    for word, capability in _BY_NAME:
        if re.search(rf"\b{re.escape(word)}", name):
            return capability
    return ""


def driver_version(root: Path = Path("/")) -> str:
    """Return the version of the NVIDIA kernel driver, such as `580.65.06`; empty for none."""
    text = read_text(root / "proc/driver/nvidia/version")
    found = re.search(r"Module.*?\s(\d+\.[\d.]+)", text)
    return found[1] if found else ""


def _ask_driver() -> Gpu | None:
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/nvhost-gpu").exists():
        return None  # loading the library takes a tenth of a second
    import ctypes

    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, value = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    found = []
    for attribute in (_MAJOR, _MINOR):
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        found.append(value.value)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    cuda.cuDeviceGetName(name, _NAME_BYTES, device)
    return Gpu(name.value.decode(errors="replace"), f"{found[0]}.{found[1]}")
