"""What differs between two bundles: the manifests field by field, the files by digest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import encode


def compare(old: Bundle, new: Bundle) -> dict[str, Any]:
    """Return the changed lines, and how many bytes of blobs are new and how many are shared."""
    before = {entry.path: entry for entry in old.manifest.files}
    after = {entry.path: entry for entry in new.manifest.files}
    lines = list(_fields(_described(old), _described(new), ""))
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            lines.append(f"- file {path} ({before[path].size} bytes)")
        elif path not in before:
            lines.append(f"+ file {path} ({after[path].size} bytes)")
        elif before[path].sha256 != after[path].sha256:
            lines.append(f"~ file {path} ({before[path].size} → {after[path].size} bytes)")
    had = {entry.sha256 for entry in before.values()}
    blobs = {entry.sha256: entry.size for entry in after.values()}
    return {
        "old": old.digest,
        "new": new.digest,
        "changed": lines,
        "new_bytes": sum(size for sha256, size in blobs.items() if sha256 not in had),
        "shared_bytes": sum(size for sha256, size in blobs.items() if sha256 in had),
    }


def _described(bundle: Bundle) -> dict[str, Any]:
    """Return the manifest with its variants by name, and without the files."""
    value = encode(bundle.manifest)
    value["variants"] = {variant["name"]: variant for variant in value["variants"]}
    del value["files"]
    return value


def _fields(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _fields(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"~ {where}: {_short(old)} → {_short(new)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
