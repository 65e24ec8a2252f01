"""Which GPUs a CUDA library has kernels for: read from the library, without CUDA.

A CUDA library holds fat binaries: a header, then entries of machine code (cubin, for one
compute capability) or of PTX (which the driver can compile for newer ones).  The layout is
NVIDIA's `fatBinaryCtl` as printed by its tools; `cuobjdump --list-elf` shows the same list.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import BinaryIO

_MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<IHHQ")  # magic, version, header bytes, bytes of all entries
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, version, header bytes, payload bytes, …, architecture
_PTX, _CUBIN = 1, 2


def architectures(path: Path) -> tuple[frozenset[int], frozenset[int]]:
    """Return the compute capabilities (such as 87) of a library's cubins, and those of its PTX.

    Both are empty if it holds no kernels or cannot be read.
    """
    cubins: set[int] = set()
    ptx: set[int] = set()
    try:
        with path.open("rb") as stream, _map(stream) as m:
            at = m.find(_MAGIC)
            while at >= 0:
                for kind, architecture in _entries(m, at):
                    (cubins if kind == _CUBIN else ptx).add(architecture)
                at = m.find(_MAGIC, at + 1)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return frozenset(), frozenset()
    return frozenset(cubins), frozenset(ptx)


def needed(path: Path) -> dict[str, str]:
    """Return {library: major version} of the NVIDIA libraries that a library is linked to."""
    try:
        with path.open("rb") as stream, _map(stream) as content:
            found = re.findall(rb"lib(cudart|cudnn|nvinfer|cublas)\.so\.(\d+)\0", content)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return {}
    return {name.decode(): major.decode() for name, major in found}


def _map(stream: BinaryIO) -> mmap.mmap:
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _entries(content: mmap.mmap, at: int) -> list[tuple[int, int]]:
    """Read the (kind, architecture) of each entry of the fat binary at an offset."""
    found: list[tuple[int, int]] = []
    if at + _HEADER.size > len(content):
        return found
    _, _, header, size = _HEADER.unpack_from(content, at)
    place, end = at + header, min(at + header + size, len(content))
    while place + _ENTRY.size <= end:
        kind, _, length, payload, *_, architecture = _ENTRY.unpack_from(content, place)
        if kind not in (_PTX, _CUBIN) or not length:
            break
        found.append((kind, architecture))
        place += length + payload
    return found
