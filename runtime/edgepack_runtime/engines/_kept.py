"""Compiled graphs, cached on this machine: each file ends in the digest of its content.

A digest is computed in one call: a thread that hashes in pieces waits for other threads after each.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgepack_runtime.paths import map_file, write_whole

_DIGEST_BYTES = 32
_PIECE = 4 << 20


def read(path: Path) -> bytes | None:
    """Read a cached file, if it is present and whole."""
    try:
        with path.open("rb", buffering=0) as stream:
            content = stream.read(max(0, path.stat().st_size - _DIGEST_BYTES))
            return content if hashlib.sha256(content).digest() == stream.read() else None
    except OSError:
        return None


def map_whole(path: Path) -> memoryview | None:
    """Map a cached file, if it is present and whole.

    It is hashed through a separate mapping, so that pages no kernel needs do not stay in memory.
    """
    try:
        found = map_file(path)
        if hashlib.sha256(found[:-_DIGEST_BYTES]).digest() != found[-_DIGEST_BYTES:]:
            return None
        return map_file(path)[:-_DIGEST_BYTES]
    except OSError:
        return None


def is_whole(path: Path) -> bool:
    """Tell whether a large cached file is present and whole, in little memory."""
    digest = hashlib.sha256()
    try:
        left = path.stat().st_size - _DIGEST_BYTES
        with path.open("rb", buffering=0) as stream:
            while left > 0:
                piece = stream.read(min(_PIECE, left))
                digest.update(piece)
                left -= len(piece) or left
            return digest.digest() == stream.read()
    except OSError:
        return False


def keep(made: Path, path: Path) -> None:
    """Cache a file that was made on the same disk; an `OSError` if it is full or read-only."""
    digest = hashlib.sha256(map_file(made)).digest()
    with made.open("ab") as stream:
        stream.write(digest)
    made.replace(path)


def write(path: Path, content: bytes) -> None:
    """Cache some content; an `OSError` if the disk is full or read-only."""
    write_whole(path, content + hashlib.sha256(content).digest())
