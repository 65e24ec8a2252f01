"""The one writer of a store, by a lock that the kernel releases if its process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import local

from edgepack_runtime.errors import EdgepackError, NothingToDoError
from edgepack_runtime.store.storage import Storage

LOCK = "lock"
_LONGEST_HELD = (
    6 * 3600
)  # seconds; the systemd unit in the examples stops an update after the same time


class Writer:
    """Allows one thread of one process to write, and to nest; see `Store.alone`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._mine = local()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only writer while the block runs."""
        if getattr(self._mine, "process", 0) == os.getpid():
            yield
            return
        self._storage.make_folder("")
        now = int(time.monotonic())
        with self._storage.lock(LOCK, own=True) as taken:
            if not taken:
                self._check_holder(now)
                raise NothingToDoError("another process or thread is updating this store")
            with suppress(OSError):  # a full disk can still roll back or collect
                self._storage.truncate(LOCK, 0)
                self._storage.append(LOCK, b"%d" % now)
            self._mine.process = os.getpid()  # a forked process must not write as well
            try:
                yield
            finally:
                self._mine.process = 0

    def _check_holder(self, now: int) -> None:
        """Raise an error if the lock is so old that its holder must be hanging or malicious.

        The file says when it was taken, in seconds since the device booted, because the clock may
        be set in the meantime.
        """
        since = self._storage.read(LOCK, 20)
        if since.isdigit() and now - int(since) > _LONGEST_HELD:
            raise EdgepackError(
                f"another process has held this store for {(now - int(since)) // 3600} h, which is "
                f"longer than an update takes: find the process that holds its file {LOCK!r}, and "
                "end it"
            )
