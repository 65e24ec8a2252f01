"""Fetch blobs into a store: from any mirror, in several attempts, whole or as a delta."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.bundle.names import is_digest
from edgepack_runtime.errors import EdgepackError, LinkError, TrustError
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.store.chunks import WrongBytesError
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.room import has_room
from edgepack_runtime.store.storage import Ranges
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.delta import decode
from edgepack_runtime.update.source import MissingError, Source, without
from edgepack_runtime.update.trust import Delta

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 300.0
T = TypeVar("T")
Event = Callable[[str, Mapping[str, object]], None]


@dataclass
class _Came:
    """The progress of a download."""

    done: int = 0
    """Bytes of the finished blobs."""
    total: int = 0
    """Bytes of all missing blobs."""


@dataclass(frozen=True)
class Download:
    """A download into a store."""

    store: Store
    """Receives the blobs."""
    sources: Sequence[Source]
    """The channel and its mirrors, tried in turn."""
    attempts: int
    """Attempts for each file."""
    pause: float
    """Seconds before the second attempt; doubled for each further one, with jitter."""
    event: Event
    """Called for every chunk."""
    _came: _Came = field(default_factory=_Came, init=False, repr=False, compare=False)

    def ask(
        self,
        ask: Callable[[Source], T],
        *,
        attempts: int | None = None,
        also: type[EdgepackError] = LinkError,
    ) -> T:
        """Ask the sources in turn, with growing pauses; raise the last error.

        An error of the kind `also` moves on to the next source; it is final once all were asked.
        """
        if not self.sources:
            raise LinkError("there is no source")
        pause, tries, failure = self.pause, attempts or self.attempts, None
        for attempt in range(max(1, tries)):
            source = self.sources[attempt % len(self.sources)]
            try:
                return ask(source)
            except (LinkError, also) as exc:
                failure = exc
                _log.info("attempt %d failed: %s", attempt + 1, exc)
            if (attempt + 1) % len(self.sources) == 0 and attempt + 1 < tries:
                if not isinstance(failure, LinkError):
                    break
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (a fleet should not ask at once)
                pause = min(2 * pause, _LONGEST_PAUSE)
        assert failure is not None  # noqa: S101 (there was an attempt)
        raise failure

    def blob(
        self, sha256: str, size: int, chunks: Sequence[str] = (), attempts: int | None = None
    ) -> None:
        """Fetch one blob, unless it is present and whole.

        Raises:
            LinkError: it does not arrive.
            TrustError: it is not what was signed.

        """
        if self.store.blobs.has(sha256, size):
            return

        def ask(source: Source) -> None:
            try:
                fetch = partial(self._fetch, source, sha256)
                self.store.blobs.receive(sha256, size, chunks, fetch)
            except WrongBytesError as exc:
                raise WrongBytesError(f"{BLOBS}/{sha256} of {source}: {exc}") from exc

        try:
            self.ask(ask, attempts=attempts)
        except WrongBytesError as exc:  # no attempt delivered the right bytes
            raise TrustError(str(exc)) from exc

    def blobs(
        self,
        missing: Mapping[str, int],
        chunks: Mapping[str, Sequence[str]],
        deltas: Sequence[Delta],
    ) -> None:
        """Fetch a release's missing blobs, {sha256: bytes}, by a delta where one is offered."""
        self._came.total, self._came.done = sum(missing.values()), 0
        for sha256, size in missing.items():
            parts = chunks.get(sha256, ())
            offered = (delta for delta in deltas if delta.blob == sha256 and self._usable(delta))
            if not any(self._from_delta(delta, size, parts) for delta in offered):
                self.blob(sha256, size, parts)
            self._came.done += size
            self.event("download", {"done": self._came.done, "total": self._came.total})

    def _fetch(self, source: Source, sha256: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a blob, and report every chunk that arrived."""
        come = start
        for piece in source.fetch(f"{BLOBS}/{sha256}", start):
            before, come = come, come + len(piece)
            if self._came.total and before // CHUNK < come // CHUNK:
                done = min(self._came.done + come, self._came.total)
                self.event("download", {"done": done, "total": self._came.total})
            yield piece

    def _usable(self, delta: Delta) -> bool:
        """Tell whether its base is here, and there is room for it and for all missing blobs."""
        if not (is_digest(delta.base) and is_digest(delta.sha256)):
            return False
        left = self._came.total - self._came.done
        there = self.store.storage.size(f"{BLOBS}/{delta.base}") >= 0
        return there and has_room(self.store.storage, left + delta.size)

    def _from_delta(self, delta: Delta, size: int, chunks: Sequence[str]) -> bool:
        """Make a blob from one that the store has; tell whether this worked.

        Whatever goes wrong here, the whole blob can still be fetched.
        """
        storage = self.store.storage
        path = f"{BLOBS}/{delta.sha256}"
        stays = storage.size(path) >= 0  # it does not belong to this download
        try:
            if storage.digest(f"{BLOBS}/{delta.base}") != delta.base:
                return False
            self.blob(delta.sha256, delta.size, attempts=1)
            packed, base = Ranges(storage, path), Ranges(storage, f"{BLOBS}/{delta.base}")
            self.store.blobs.receive(
                delta.blob,
                size,
                chunks,
                lambda start: without(start, decode(packed.take, base, size)),
            )
        except MissingError:
            return False  # a file that carries whole blobs needs no deltas
        except (LinkError, TrustError, OSError) as exc:
            _log.warning("a delta is not usable, fetching the whole blob: %s", exc)
            return False
        finally:
            if not stays:  # its room is needed
                storage.remove(path)
                storage.remove(f"{PARTS}/{delta.sha256}")
        return True
