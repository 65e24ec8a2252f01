"""The names, versions, digests and paths that a bundle may hold."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def safe_name(name: str) -> bool:
    """Tell whether `name` may name a bundle, a version, a target or a variant."""
    return bool(_NAME.fullmatch(name))


def is_digest(text: str) -> bool:
    """Tell whether a text is a sha256 as this format writes it: 64 lower-case hex digits."""
    return bool(_DIGEST.fullmatch(text))


def is_version(text: str) -> bool:
    """Tell whether a text is a version of numbers and dots, as `2.28`."""
    return bool(_VERSION.fullmatch(text))


def safe_path(path: str) -> bool:
    """Tell whether `path` is a plain relative POSIX path that stays below its folder."""
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ":" in path:
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))
