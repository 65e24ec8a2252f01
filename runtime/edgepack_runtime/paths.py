"""Where a device keeps what it learned: XDG folders, each with an override."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$EDGEPACK_CACHE`, or `edgepack` below `$XDG_CACHE_HOME` or `~/.cache`."""
    if override := os.environ.get("EDGEPACK_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgepack"
