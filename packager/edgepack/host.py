"""What a host may lack for a build whose input is right: a package, memory, disk, the network."""

from __future__ import annotations

import errno
import os
import re

from edgepack_runtime.errors import EdgepackError, HostError, LinkError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The wording of torch, CUDA, ONNX Runtime and C++, in errors of any kind.
_NO_MEMORY = re.compile(r"out of memory|(not enough|allocate) memory|bad[_ ]alloc", re.IGNORECASE)


def lacks_extra(what: str, extra: str) -> HostError:
    """Return the error for a missing package, naming the extra of edgepack that installs it."""
    return HostError(f"{what} needs the extra `{extra}`: pip install 'edgepack[{extra}]'")


def lacks_memory(exc: BaseException) -> bool:
    """Tell whether an error of a library says that memory ran out."""
    return isinstance(exc, MemoryError) or bool(_NO_MEMORY.search(str(exc)))


def lacks_disk(exc: BaseException) -> bool:
    """Tell whether an error says that a disk or its quota is full."""
    return getattr(exc, "errno", None) in _FULL


def not_fetched(what: str, exc: OSError) -> EdgepackError:
    """Return the error for a failed download: the disk is full, or the network failed."""
    reason = str(exc).partition("\n")[0]
    if lacks_disk(exc):
        return HostError(
            f"{what}: {reason}. Free some space; the download resumes where it stopped"
        )
    return LinkError(f"{what}: {reason}. Try again; a local copy works without a network")


def hub_is_off() -> bool:
    """Tell whether the user forbade access to the hub, by the rule of the hub's own library."""
    return os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
