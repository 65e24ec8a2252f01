"""Ask an x86 CPU itself what it can do.

`/proc/cpuinfo` shows the abilities of the kernel's CPU.  Under user-mode emulation, and in some
containers and virtual machines, that is not the CPU that runs this process.  So the flags that
decide between kernels are read with the CPUID instruction, as engines do.
"""

from __future__ import annotations

import platform
import sys
from functools import cache

# rdi: leaf, rsi: subleaf, rdx: where to store eax, ebx, ecx, edx
_CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
_PAGE = 4096
_LARGEST_32_BIT = 2**31 - 1
_EXTENDED = 7
# Linux's name of a flag: (subleaf of leaf 7, register, bit), Intel SDM volume 2A, CPUID.
_FLAGS = {
    "avx2": (0, 1, 5),
    "avx512f": (0, 1, 16),
    "avx512_vnni": (0, 2, 11),
    "amx_bf16": (0, 3, 22),
    "amx_int8": (0, 3, 25),
    "avx_vnni": (1, 0, 4),
}


@cache
def absent() -> frozenset[str]:
    """Return the flags of the table above that this x86 CPU says it lacks.

    Empty on other CPUs, and where the system does not allow the instruction to run.
    """
    wide = sys.maxsize > _LARGEST_32_BIT  # the code below is for 64-bit processes
    if platform.machine().lower() not in ("x86_64", "amd64") or not wide:
        return frozenset()
    try:
        subleaves = _leaf_seven()
    except (OSError, ValueError, AttributeError, TypeError, ImportError):
        return frozenset()
    return frozenset(
        name
        for name, (subleaf, register, bit) in _FLAGS.items()
        if not subleaves[subleaf][register] >> bit & 1
    )


def _leaf_seven() -> list[tuple[int, ...]]:
    """Run CPUID from a separate page; return the registers of both subleaves."""
    import ctypes
    import mmap

    page = mmap.mmap(-1, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CPUID)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    registers = (ctypes.c_uint32 * 4)()
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(start)

    def ask(leaf: int, subleaf: int) -> tuple[int, ...]:
        call(leaf, subleaf, ctypes.addressof(registers))
        return tuple(registers)

    none = (0, 0, 0, 0)
    if ask(0, 0)[0] < _EXTENDED:
        return [none, none]
    first = ask(_EXTENDED, 0)
    return [first, ask(_EXTENDED, 1) if first[0] >= 1 else none]
