"""The one writer of a store, by a lock that the kernel lets go of if its process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import local

from edgepack_runtime.errors import EdgepackError, NothingToDoError
from edgepack_runtime.store.storage import Storage

LOCK = "lock"
_LONGEST_HELD = 6 * 3600  # seconds; the systemd unit of the examples ends an update then, too


class Writer:
    """Lets one thread of one process write, as often as it asks; see `Store.alone`."""

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
                raise NothingToDoError("another process or thread updates this store")
            with suppress(OSError):  # a full disk still goes back, or collects
                self._storage.truncate(LOCK, 0)
                self._storage.append(LOCK, b"%d" % now)
            self._mine.process = os.getpid()  # one that is forked does not write as well
            try:
                yield
            finally:
                self._mine.process = 0

    def _check_holder(self, now: int) -> None:
        """Raise an error if the lock was taken so long ago that its holder hangs, or means harm.

        The file says when, in seconds since the device came up: its clock may be set meanwhile.
        """
        since = self._storage.read(LOCK, 20)
        if since.isdigit() and now - int(since) > _LONGEST_HELD:
            raise EdgepackError(
                f"another process has held this store for {(now - int(since)) // 3600} h, which is "
                f"longer than an update takes: see which holds its file {LOCK!r}, and end it"
            )
