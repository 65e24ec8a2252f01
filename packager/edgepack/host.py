"""What a host may lack for a build whose input is right: a package, memory, disk, the network."""

from __future__ import annotations

import errno
import os
import re

from edgepack_runtime.errors import EdgepackError, HostError, LinkError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As torch, CUDA, ONNX Runtime and C++ say it, in errors of any kind.
_NO_MEMORY = re.compile(r"out of memory|(not enough|allocate) memory|bad[_ ]alloc", re.IGNORECASE)


def lacks_extra(what: str, extra: str) -> HostError:
    """Return the error of a package that is missing, with the extra of edgepack that brings it."""
    return HostError(f"{what} needs the extra `{extra}`: pip install 'edgepack[{extra}]'")


def lacks_memory(exc: BaseException) -> bool:
    """Tell whether an error of a library says that memory ran out."""
    return isinstance(exc, MemoryError) or bool(_NO_MEMORY.search(str(exc)))


def lacks_disk(exc: BaseException) -> bool:
    """Tell whether an error says that a disk or its quota is full."""
    return getattr(exc, "errno", None) in _FULL


def not_fetched(what: str, exc: OSError) -> EdgepackError:
    """Return the error of a download that broke off: the disk is full, or the network failed."""
    reason = str(exc).partition("\n")[0]
    if lacks_disk(exc):
        return HostError(f"{what}: {reason}. Free some room; what came is kept")
    return LinkError(f"{what}: {reason}. Try again; a local copy works without network")


def hub_is_off() -> bool:
    """Tell whether the user forbade to ask the hub, as its own library reads that."""
    return os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
