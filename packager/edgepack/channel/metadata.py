"""The metadata files in a channel's folder: found by their names, and read as plain files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.channel.durable import read_plain
from edgepack_runtime.bundle.names import is_digest
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

METADATA = "metadata"
_SAID = {"release": int, "version": str, "percent": int}


def load(folder: Path, role: str) -> Metadata[Any]:
    """Return a role's newest metadata in a channel, unchecked."""
    path = newest(folder, role)
    found = parsed(path, read_plain(path))
    if found.signed.type != role:
        raise InputError(f"{path} is damaged: it holds the {found.signed.type} metadata")
    return found


def releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {target: its entry, with its digest} of a channel, unchecked."""
    found = {}
    for name, target in sorted(load(folder, "targets").signed.targets.items()):
        said, sha256 = target.custom, target.hashes.get("sha256", "")
        whole = isinstance(said, dict) and all(type(said.get(k)) is v for k, v in _SAID.items())
        if not whole or not is_digest(sha256):
            raise InputError(
                f"the channel's entry for {name!r} is malformed: restore its {METADATA}, or "
                "publish that release again"
            )
        found[name] = {**said, "digest": f"sha256:{sha256}"}
    return found


def root_of(folder: Path, version: int) -> tuple[Metadata[Any], bytes]:
    """Return a version of the root in a channel, unchecked, and its bytes."""
    path = folder / METADATA / f"{version}.root.json"
    try:
        content = read_plain(path)
    except FileNotFoundError as exc:
        raise InputError(
            f"{path} is missing: restore it, because devices follow the roots"
        ) from exc
    return parsed(path, content), content


def roots(folder: Path, last: int) -> Iterator[tuple[str, bytes]]:
    """Yield the (path, content) of the roots up to a version, each signed by the one before it.

    Raises:
        InputError: one is missing, or belongs to another chain.

    """
    from tuf.api.exceptions import RepositoryError

    before = None
    for version in range(1, last + 1):
        root, content = root_of(folder, version)
        try:
            (before or root).signed.verify_delegate("root", root.signed_bytes, root.signatures)
        except RepositoryError as exc:
            raise InputError(
                f"root {version} in {folder / METADATA} does not lead to the newest: restore it"
            ) from exc
        before = root
        yield f"{METADATA}/{version}.root.json", content


def parsed(path: Path, content: bytes) -> Metadata[Any]:
    """Return parsed metadata; an `InputError` if it is not metadata."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    try:
        return Metadata.from_bytes(content)
    except RepositoryError as exc:
        raise InputError(f"{path} is damaged: {exc}") from exc


def newest(folder: Path, role: str) -> Path:
    """Return the file of a role with the highest number; an `InputError` if there is none."""
    paths = [
        path
        for path in (folder / METADATA).glob(f"*{role}.json")
        if re.fullmatch(rf"([0-9]+\.)?{role}\.json", path.name)
    ]
    if not paths:
        raise InputError(f"no channel at {folder}: {METADATA}/{role}.json is missing")
    return max(paths, key=number)


def number(path: Path) -> int:
    """Return the version in a file's name; -1 if there is none."""
    first = path.name.partition(".")[0]
    return int(first) if first.isdigit() else -1
