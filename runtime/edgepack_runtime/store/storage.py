"""The one way to the disk of a store: few operations, each of known durability.

What survives a power cut: the bytes of a file that was synced, under a name whose folder was
synced after the name was made, and so the folder's own name.  Nothing else is promised, so
everything in the store is built from these operations and proven by the crash explorer of the
tests, which enumerates what a cut may leave behind.
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

    root: Path  # where it stands

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return the bytes of a file from `start` on, at most `size` of them."""

    def digest(self, path: str) -> str:
        """Return a file's sha256, read piece by piece: a bad sector is an `OSError`, no signal."""

    def size(self, path: str) -> int:
        """Return a file's size in bytes; -1 if it is not there."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; empty if it is not there."""

    def make_folder(self, path: str) -> None:
        """Make a folder if it is not there, under a name that may not last."""

    def create(self, path: str) -> None:
        """Make an empty file; one that is there loses this name, and keeps its bytes."""

    def append(self, path: str, content: bytes) -> None:
        """Write at the end of a file."""

    def truncate(self, path: str, size: int) -> None:
        """Cut a file."""

    def overwrite(self, path: str, content: bytes) -> None:
        """Write over the beginning of a file that is at least as long: no new block is needed."""

    def sync(self, path: str) -> None:
        """Make a file's bytes durable."""

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable; `..` is the one that the store's own stands in."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in one step; what had that name is gone."""

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

    def free(self) -> int:
        """Return how many bytes of room there are."""

    def map(self, path: str) -> memoryview:
        """Return a view of a file that is never written again; a bad sector of it is a signal."""

    def lock(
        self, path: str, *, shared: bool = False, own: bool = False
    ) -> AbstractContextManager[bool]:
        """Hold a lock on a file while the block runs; tell whether it was free.

        A shared one goes with other shared ones.  The file of one's own is made if it is not there,
        and can be opened by its user alone; any other has to be there.
        """


class Ranges:
    """A file that is read range by range, where a map would end in a signal at a bad sector."""

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
        """Return the next so many bytes, fewer at the end."""
        piece = self[self._taken : self._taken + size]
        self._taken += len(piece)
        return piece


class Disk:
    """A folder of this device."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return the bytes of a file from `start` on, at most `size` of them."""
        with (self.root / path).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def digest(self, path: str) -> str:
        """Return a file's sha256, read piece by piece."""
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
        """Make a folder if it is not there; those above the store's own last when it returns."""
        for above in reversed(self.root.absolute().parents):
            if not above.is_dir():
                above.mkdir(exist_ok=True)
                _sync(above.parent, os.O_RDONLY)
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def create(self, path: str) -> None:
        """Make an empty file in place of what is there: that may have another name as well."""
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
        """Give a file another name, in one step."""
        (self.root / old).replace(self.root / new)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        (self.root / path).unlink(missing_ok=True)

    def free(self) -> int:
        """Return how many bytes of room there are."""
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
            with suppress(OSError):  # it is another user's, or this disk knows no modes
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
