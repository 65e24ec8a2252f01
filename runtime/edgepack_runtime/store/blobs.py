"""The blobs of a store.  A blob gets its digest as its name only once it is durable and whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.bundle.names import is_digest
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.store.chunks import Buffer, WrongBytesError, checked
from edgepack_runtime.store.layout import BLOBS, BlobLayout
from edgepack_runtime.store.storage import Storage

PARTS = "parts"
Fetch = Callable[[int], Iterator[Buffer]]


class Blobs:
    """Files by their sha256, and the parts of unfinished downloads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def bundle(self, digest: str) -> Bundle:
        """Open a release; raise a `TrustError` if it is not whole."""
        name = _checked_name(digest.removeprefix("sha256:"))
        size = self._storage.size(f"{BLOBS}/{name}")
        if size < 0:
            raise TrustError(f"the store has no release {digest}")
        return Bundle(self._storage.root / digest, BlobLayout(self._storage, name, size))

    def whole(self, digest: str) -> Bundle | None:
        """Open a release and hash every byte of it; return None if it is not whole."""
        try:
            found = self.bundle(digest)
            blobs = found.blobs()
            if all(self._storage.digest(f"{BLOBS}/{name}") == name for name in blobs):
                return found
        except (TrustError, InputError, OSError):
            pass
        return None

    def missing(self, bundle: Bundle) -> dict[str, int]:
        """Return {sha256: bytes} of the bundle's blobs that the store lacks, according to `has`."""
        return {name: size for name, size in bundle.blobs().items() if not self.has(name, size)}

    def has(self, name: str, size: int) -> bool:
        """Tell whether a blob is present and whole; remove a damaged one, so it is fetched again.

        The blob is hashed, because its size does not reveal a flipped bit or a bad sector.
        """
        path = f"{BLOBS}/{name}"
        if self._storage.size(path) != size:
            return False
        with suppress(OSError):
            if self._storage.digest(path) == name:
                return True
        self._storage.remove(path)
        return False

    def receive(self, name: str, size: int, chunks: Sequence[str], fetch: Fetch) -> None:
        """Receive one blob: check it chunk by chunk, make it durable, hash it again, then name it.

        A part left by an earlier attempt is reused up to its first wrong chunk.

        Args:
            name: its sha256.
            size: its size in bytes; nothing beyond that is read.
            chunks: the sha256 of each `CHUNK` bytes; empty to check only the whole blob.
            fetch: called with the offset of the first missing byte; yields the bytes from there on.

        Raises:
            LinkError: too few, too many or wrong bytes arrived; the correct ones are not discarded.
            OSError: the disk reports an error.

        """
        part = f"{PARTS}/{_checked_name(name)}"
        for folder in (BLOBS, PARTS):
            self._storage.make_folder(folder)
        have = self._good(part, size, chunks)
        if have < size or not size:
            for chunk in checked(fetch(have), size - have, chunks[have // CHUNK :]):
                self._storage.append(part, chunk)
        try:
            self._storage.sync(part)
            found = self._storage.digest(part)
        except OSError:
            self._storage.remove(part)  # what can be read now may not be what is on the disk
            raise
        if found != name:
            self._storage.remove(part)
            raise WrongBytesError("it is not what was signed")
        self._storage.rename(part, f"{BLOBS}/{name}")

    def _good(self, part: str, size: int, chunks: Sequence[str]) -> int:
        """Cut a part down to its correct chunks, or make a new one; return its size in bytes."""
        good = 0
        with suppress(OSError):  # a bad sector: what precedes it is good
            for digest in chunks if self._storage.size(part) > 0 else ():
                chunk = self._storage.read(part, min(CHUNK, size - good), good)
                if hashlib.sha256(chunk).hexdigest() != digest:
                    break
                good += len(chunk)
        if good:
            self._storage.truncate(part, good)
        else:
            self._storage.create(part)
        return good

    def collect(
        self, releases: Iterable[str], keep: Collection[str], *, spare_readers: bool = True
    ) -> int:
        """Remove the blobs that none of these releases needs; return the number of bytes freed.

        Blobs named in `keep` are protected, and so are those that somebody reads, unless
        `spare_readers` is off.  Nothing is synced: what a power cut brings back is collected the
        next time.
        """
        wanted = self._wanted(releases)
        if wanted is not None and spare_readers:
            wanted |= self._read_by_others(wanted)
        freed = 0
        for folder, kept in ((PARTS, set(keep)), (BLOBS, wanted)):
            if kept is None:
                continue
            for name in self._storage.names(folder):
                if name not in kept and name not in keep:
                    freed += max(0, self._storage.size(f"{folder}/{name}"))
                    self._storage.remove(f"{folder}/{name}")
        return freed

    def _wanted(self, releases: Iterable[str]) -> set[str] | None:
        """Return the blobs that the releases need; None if one of them cannot be read."""
        found: set[str] = set()
        for digest in releases:
            name = digest.removeprefix("sha256:")
            found.add(name)
            try:
                found |= set(self.bundle(digest).blobs())
            except (TrustError, OSError):
                if self._storage.size(f"{BLOBS}/{name}") >= 0:
                    return None
        return found

    def _read_by_others(self, wanted: Collection[str]) -> set[str]:
        """Return the blobs of releases that are not wanted but that somebody still reads."""
        found: set[str] = set()
        for name in self._storage.names(BLOBS):
            if name in wanted:
                continue
            lock = self._storage.lock(f"{BLOBS}/{name}")
            with suppress(OSError, TrustError, InputError), lock as free:
                if not free:
                    found |= {name, *self.bundle(name).blobs()}
        return found


def _checked_name(name: str) -> str:
    """Return a blob's name if it is a digest, because it becomes part of a path."""
    if not is_digest(name):
        raise TrustError(f"{name[:80]!r} is not a sha256")
    return name
