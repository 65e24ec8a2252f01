"""A store for readers: which releases it holds, and which one runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import NothingToDoError, TrustError
from edgepack_runtime.store import record as records
from edgepack_runtime.store.blobs import Blobs
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.record import Record
from edgepack_runtime.store.storage import Disk, Storage

Opened = TypeVar("Opened", bound="Reader")


class Reader:
    """The releases on a disk, and the record of which one runs."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage  # nothing is created until there is something to write
        self.blobs = Blobs(storage)

    @classmethod
    def at(cls: type[Opened], root: Path) -> Opened:  # noqa: PYI019 (Python 3.10 has no Self)
        """Open the store in a folder; nothing is created until there is something to write."""
        return cls(Disk(root))

    @property
    def state(self) -> Record:
        """Read the current state."""
        return records.read(self.storage)

    def running(self) -> Bundle | None:
        """Return the release that runs, ignoring any trial; None for the factory's."""
        state = self.state
        wholes = (self.blobs.whole(digest) for digest in (state.active, state.previous) if digest)
        return next((found for found in wholes if found is not None), None)

    def before_is_damaged(self) -> bool:
        """Tell whether the previous release exists but is damaged."""
        state = self.state
        return state.previous != "" and self.blobs.whole(state.previous) is None

    def releases(self) -> list[Bundle]:
        """Return the readable releases of the record: active, previous, on trial."""
        state, found = self.state, []
        for digest in filter(None, (state.active, state.previous, state.trial)):
            with suppress(TrustError, OSError):
                found.append(self.blobs.bundle(digest))
        return found

    @contextmanager
    def reading(self) -> Iterator[Bundle | None]:
        """Protect the running release from collection while the block runs.

        Yields it, or None for the factory's.  The lock is on its manifest's blob; the kernel
        releases it if this process dies.
        """
        with ExitStack() as held:
            yield self._held(held)

    def _held(self, held: ExitStack) -> Bundle | None:
        while True:
            state = self.state
            for digest in filter(None, (state.active, state.previous)):
                path = f"{BLOBS}/{digest.removeprefix('sha256:')}"
                with suppress(OSError):  # it is gone, or this disk does not support locks
                    held.enter_context(self.storage.lock(path, shared=True))
                found, now = self.blobs.whole(digest), self.state
                # A release dropped before the lock was taken may be half collected.
                if found is not None and digest in (now.active, now.previous):
                    return found
            if self.state.seq == state.seq:
                return None

    def check_wanted(self, digest: str) -> None:
        """Raise a `NothingToDoError` if a release is not to be installed."""
        state = self.state
        if state.pinned:
            raise NothingToDoError("the store is pinned: edgepack-runtime pin --off allows updates")
        if digest == state.active and self.blobs.whole(digest):
            raise NothingToDoError(f"{digest} is installed already")
        if digest == state.trial:
            raise NothingToDoError(f"{digest} is on trial already")
        if digest in state.bad:
            raise NothingToDoError(
                f"{digest} failed on this device before, or was rolled back; "
                "edgepack-runtime retry allows another attempt"
            )
