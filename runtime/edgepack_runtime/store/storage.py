"""The only way to the disk of a store: a few operations, each of known durability.

What survives a power cut: the bytes of a file that was synced, under a name whose folder was
synced after the name was made.  The same holds for the folder's own name.  Nothing else is
promised.  So everything in the store is built from these operations and proven by the crash
explorer of the tests, which enumerates what a power cut may leave behind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

_PIECE = 1 << 20
_OWN = 0o600


class Storage(Protocol):
    """A tree of files.  Paths are relative, with `/`; a missing file is `FileNotFoundError`."""

    root: Path  # where it is

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return the bytes of a file from `start` on, at most `size` of them."""

    def digest(self, path: str) -> str:
        """Return a file's sha256, read in pieces: a bad sector is an `OSError`, not a signal."""

    def size(self, path: str) -> int:
        """Return a file's size in bytes; -1 if it is not there."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; empty if it is not there."""

    def make_folder(self, path: str) -> None:
        """Make a folder if it is not there; its name is not durable yet."""

    def create(self, path: str) -> None:
        """Make an empty file; an existing one loses this name, but its bytes are not touched."""

    def append(self, path: str, content: bytes) -> None:
        """Write at the end of a file."""

    def truncate(self, path: str, size: int) -> None:
        """Cut a file."""

    def overwrite(self, path: str, content: bytes) -> None:
        """Write over the beginning of a file that is at least as long: no new block is needed."""

    def sync(self, path: str) -> None:
        """Make a file's bytes durable."""

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable; `..` is the parent of the store's folder."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file, in one step; a file that had the new name is gone."""

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

    def free(self) -> int:
        """Return the number of free bytes."""

    def map(self, path: str) -> memoryview:
        """Return a view of a file that is never written again; a bad sector in it is a signal."""

    def lock(
        self, path: str, *, shared: bool = False, own: bool = False
    ) -> AbstractContextManager[bool]:
        """Hold a lock on a file while the block runs; tell whether it was free.

        A shared lock is compatible with other shared locks.  If `own`, the file is created when
        missing and only its user can open it; otherwise it must exist.
        """


class Ranges:
    """A file that is read range by range; with a map, a bad sector would be a signal."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._size = storage.size(path)
        self._taken = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, end, _ = span.indices(self._size)
        return self._storage.read(self._path, end - start, start)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        piece = self[self._taken : self._taken + size]
        self._taken += len(piece)
        return piece


class Disk:
    """A folder on this device."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return the bytes of a file from `start` on, at most `size` of them."""
        with (self.root / path).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def digest(self, path: str) -> str:
        """Return a file's sha256, read in pieces."""
        found = hashlib.sha256()
        with (self.root / path).open("rb") as stream:
            while piece := stream.read(_PIECE):
                found.update(piece)
        return found.hexdigest()

    def size(self, path: str) -> int:
        """Return a file's size in bytes; -1 if it is not there."""
        try:
            return (self.root / path).stat().st_size
        except FileNotFoundError:
            return -1

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; empty if it is not there."""
        try:
            return sorted(os.listdir(self.root / folder))  # noqa: PTH208 (names, not paths)
        except FileNotFoundError:
            return []

    def make_folder(self, path: str) -> None:
        """Make a folder if it is not there; the parents of the store's folder are durable."""
        for above in reversed(self.root.absolute().parents):
            if not above.is_dir():
                above.mkdir(exist_ok=True)
                _sync(above.parent, os.O_RDONLY)
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def create(self, path: str) -> None:
        """Make an empty file in place of an existing one, which may have another name as well."""
        self.remove(path)
        (self.root / path).write_bytes(b"")

    def append(self, path: str, content: bytes) -> None:
        """Write at the end of a file."""
        with (self.root / path).open("ab") as stream:
            stream.write(content)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file."""
        os.truncate(self.root / path, size)

    def overwrite(self, path: str, content: bytes) -> None:
        """Write over the beginning of a file that is at least as long."""
        with (self.root / path).open("r+b") as stream:
            stream.write(content)

    def sync(self, path: str) -> None:
        """Make a file's bytes durable."""
        _sync(self.root / path, os.O_RDWR)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        _sync(self.root / path, os.O_RDONLY)

    def rename(self, old: str, new: str) -> None:
        """Rename a file, in one step."""
        (self.root / old).replace(self.root / new)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        (self.root / path).unlink(missing_ok=True)

    def free(self) -> int:
        """Return the number of free bytes."""
        from edgepack_runtime.paths import free_bytes

        return free_bytes(self.root)

    def map(self, path: str) -> memoryview:
        """Return a view of a file that is never written again."""
        from edgepack_runtime.paths import map_file

        return map_file(self.root / path)

    def lock(
        self, path: str, *, shared: bool = False, own: bool = False
    ) -> AbstractContextManager[bool]:
        """Hold a lock on a file while the block runs; tell whether it was free."""
        return _locked(self.root / path, shared=shared, own=own)


@contextmanager
def _locked(path: Path, *, shared: bool, own: bool) -> Iterator[bool]:
    import fcntl

    flags = (os.O_RDONLY if shared else os.O_WRONLY) | (os.O_CREAT if own else 0)
    handle = os.open(path, flags, _OWN)
    try:
        # Whoever can open a file can lock it.
        if own and os.fstat(handle).st_mode & 0o777 != _OWN:
            with suppress(OSError):  # it is another user's, or this disk has no file modes
                os.fchmod(handle, _OWN)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
