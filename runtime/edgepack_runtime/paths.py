"""Where a device stores what it learned, and how files are read, mapped and written there."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Return `$EDGEPACK_CACHE`, or `edgepack` below `$XDG_CACHE_HOME` or `~/.cache`.

    A user without a home, as in some containers, gets a folder that cannot be made: nothing is
    cached.
    """
    if override := os.environ.get("EDGEPACK_CACHE"):
        return Path(override)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        base = os.devnull
    return Path(base) / "edgepack"


def of_its_own() -> dict[str, Any]:
    """Return the options for `subprocess` to run this package in a separate process.

    Python looks for modules in the current folder first, and that folder may belong to anyone: a
    stick, for example.
    """
    home = Path(__file__).absolute().parents[1]
    env = {**os.environ, "EDGEPACK_CACHE": str(cache_folder().absolute())}
    return {"cwd": home, "env": env}


def free_bytes(folder: Path) -> int:
    """Return the free bytes where a folder is, or will be made."""
    import shutil

    found = (folder, *folder.absolute().parents)
    return shutil.disk_usage(next(path for path in found if path.exists())).free


def read_text(path: Path) -> str:
    """Read a file of the system; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def map_file(path: Path) -> memoryview:
    """Map a file copy-on-write: it is read lazily, and writable for engines that need that.

    Raises:
        OSError: it cannot be read.

    """
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step; make its folder if needed.

    After a power cut it may exist without its content: readers check what they read.

    Raises:
        OSError: the disk is full or read-only.

    """
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
