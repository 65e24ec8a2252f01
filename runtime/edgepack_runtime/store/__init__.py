"""The device's disk: releases, which of them runs, and how a new one takes over.

    install → trial → confirm [→ settle]    the new release runs
                    ↘ reject, or no attempt left → the old one runs, the new one is in the bad list

Invariants, whatever happens between two operations:
* what `start` returns is a whole release that was active or is on trial, or the factory's;
* a blob stands under its digest only when all its bytes are durable and were hashed after that;
* the record names a release only when all its blobs do;
* floors never fall.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgepack_runtime.bundle import Bundle
from edgepack_runtime.errors import (
    DeviceError,
    InputError,
    LinkError,
    NothingToDoError,
    TrustError,
)
from edgepack_runtime.manifest import CHUNK, is_digest
from edgepack_runtime.store import record as records
from edgepack_runtime.store.chunks import Buffer, checked, rest
from edgepack_runtime.store.layout import BLOBS, BlobLayout
from edgepack_runtime.store.record import Record
from edgepack_runtime.store.storage import Disk, Storage

ATTEMPTS = 3
PARTS, LOCK = "parts", "lock"
MINIMUM = "minimum:"  # the floor of this name and NAME/BOARD: no rollback goes below that release
Fetch = Callable[[int], Iterator[Buffer]]
TIME = "time"  # the floor below which no clock is believed, in seconds since 1970
_MARGIN = 1 << 20  # bytes left free for the rest of the system


@dataclass(frozen=True)
class Started:
    """What a device should load: a release of the store, or None for the factory's.

    on_trial: it has to prove itself; call `confirm` or `reject`.
    """

    bundle: Bundle | None
    on_trial: bool


class Store:
    """Releases on a disk and the record of which one runs.  One writer at a time."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage  # nothing is written before there is something to write

    @classmethod
    def at(cls, root: Path) -> Store:
        """Open the store in a folder; nothing is made before there is something to write."""
        return cls(Disk(root))

    @property
    def state(self) -> Record:
        """Read the state that counts now."""
        return records.read(self.storage)

    def bundle(self, digest: str) -> Bundle:
        """Open a release; a `TrustError` if it is not whole."""
        name = _checked_name(digest.removeprefix("sha256:"))
        size = self.storage.size(f"{BLOBS}/{name}")
        if size < 0:
            raise TrustError(f"the store has no release {digest}")
        return Bundle(Path(digest), BlobLayout(self.storage, name, size))

    def missing(self, bundle: Bundle) -> dict[str, int]:
        """Return {sha256: bytes} of the blobs of a bundle that the store lacks.

        Those that are there are hashed, and removed if they are damaged, so that they come again.
        """
        return {name: size for name, size in bundle.blobs().items() if not self._has(name, size)}

    def _has(self, name: str, size: int) -> bool:
        path = f"{BLOBS}/{name}"
        if self.storage.size(path) != size:
            return False
        with suppress(OSError):
            if self.storage.digest(path) == name:
                return True
        self.storage.remove(path)
        return False

    def install(self, bundle: Bundle, floors: Mapping[str, int] | None = None) -> Record:
        """Copy a bundle's blobs, make them durable, and put the release on trial.

        Raises:
            NothingToDoError: it runs already, is on trial, failed here before, or is held back.
            DeviceError: there is no room.
            TrustError: a blob is not what it should be.
            OSError: the disk refuses; what ran still does.

        """
        self.check_wanted(bundle.digest)
        missing = self.missing(bundle)
        self.make_room(sum(missing.values()), bundle.blobs())
        state = self.state
        for name, size in missing.items():
            self.receive(name, size, (), partial(rest, bundle.blob(name)))
        self.storage.sync_folder(BLOBS)
        new = replace(state, trial=bundle.digest, attempts=ATTEMPTS)
        return records.write(self.storage, new.raised(floors or {}))

    def receive(self, name: str, size: int, chunks: Sequence[str], fetch: Fetch) -> None:
        """Take one blob: checked chunk by chunk, made durable, hashed once more, then named.

        A part that an earlier try left is kept as far as its chunks are right.

        Args:
            name: its sha256.
            size: its bytes; not one more is read.
            chunks: the sha256 of each `CHUNK` bytes; empty if it is to be checked as a whole.
            fetch: called with the first byte that is missing; yields the bytes from there on.

        Raises:
            LinkError: too few or too many bytes came, or wrong ones; what was right is kept.
            OSError: the disk refuses.

        """
        part = f"{PARTS}/{_checked_name(name)}"
        for folder in (BLOBS, PARTS):
            self.storage.make_folder(folder)
        have = self._good(part, size, chunks)
        if have < size or not size:
            for chunk in checked(fetch(have), size - have, chunks[have // CHUNK :]):
                self.storage.append(part, chunk)
        try:
            self.storage.sync(part)
        except OSError:
            self.storage.remove(part)  # what it shows now may not be what the disk keeps
            raise
        if self.storage.digest(part) != name:
            self.storage.remove(part)
            raise LinkError(f"blob {name[:12]} is not what was signed")
        self.storage.rename(part, f"{BLOBS}/{name}")

    def _good(self, part: str, size: int, chunks: Sequence[str]) -> int:
        """Cut a part to its right chunks, or make a new one; return its bytes."""
        good = 0
        if chunks and self.storage.size(part) > 0:
            content = self.storage.map(part)[:size]
            for digest in chunks:
                chunk = content[good : good + CHUNK]
                if hashlib.sha256(chunk).hexdigest() != digest:
                    break
                good += len(chunk)
        if good:
            self.storage.truncate(part, good)
        else:
            self.storage.create(part)
        return good

    def start(self) -> Started:
        """Say what to load now.  A trial costs an attempt, written before it is returned.

        Never fails because of what the disk holds: a release that is not whole is passed over.
        """
        state = self.state
        with suppress(OSError):  # what cannot be counted is not tried: the old one runs
            if state.trial and state.attempts == 0:
                state = self.reject()
            elif state.trial:
                state = self._write(replace(state, attempts=state.attempts - 1))
                if (found := self._whole(state.trial)) is not None:
                    return Started(found, on_trial=True)
        return Started(self.running(), on_trial=False)

    def running(self) -> Bundle | None:
        """Return the release that runs, a trial not counted; None for the factory's."""
        state = self.state
        wholes = (self._whole(digest) for digest in (state.active, state.previous) if digest)
        return next((found for found in wholes if found is not None), None)

    @contextmanager
    def reading(self) -> Iterator[Bundle | None]:
        """Keep the release that runs from being collected while the block runs.

        Yields it, or None for the factory's.  The lock is on its manifest's blob, and the kernel
        lets go of it if this process dies.
        """
        with ExitStack() as held:
            yield self._held(held)

    def _held(self, held: ExitStack) -> Bundle | None:
        while True:
            state = self.state
            for digest in filter(None, (state.active, state.previous)):
                path = f"{BLOBS}/{digest.removeprefix('sha256:')}"
                with suppress(OSError):  # it is gone, or this disk knows no locks
                    held.enter_context(self.storage.lock(path, shared=True))
                found, now = self._whole(digest), self.state
                # What was dropped before the lock was there may be half collected.
                if found is not None and digest in (now.active, now.previous):
                    return found
            if self.state.seq == state.seq:
                return None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only writer; the kernel lets go if this process dies.  Makes the store's folder.

        Raises:
            NothingToDoError: another process is at it.

        """
        self.storage.make_folder("")
        with self.storage.lock(LOCK) as taken:
            if not taken:
                raise NothingToDoError("another process updates this store")
            yield

    def confirm(self, floors: Mapping[str, int] | None = None, *, settled: bool = True) -> Record:
        """Make the release on trial the active one; what ran before is kept to go back to.

        Args:
            floors: what to raise with it.
            settled: there is nothing to wait for.  If there is (a hook after the switch), it stays
                on trial while it is active, until `settle`, or `reject`, which goes back.

        """
        state = self.state
        if not state.trial:
            raise NothingToDoError("no release is on trial")
        new = replace(state, active=state.trial, previous=state.active)
        new = replace(new, trial="", attempts=0) if settled else replace(new, attempts=ATTEMPTS)
        return self._write(new.raised(floors or {}))

    def settle(self) -> Record:
        """Say that the active release has stood what came after the switch."""
        return self._write(replace(self.state, trial="", attempts=0))

    def abandon(self) -> Record:
        """Give up the release on trial for now: it may be tried again."""
        return self._write(_given_up(self.state))

    def reject(self) -> Record:
        """Give up the release on trial: what was active goes on, and it is not tried again."""
        state = self.state
        if not state.trial:
            raise NothingToDoError("no release is on trial")
        return self._write(_given_up(state.with_bad(state.trial)))

    def rollback(self, digest: str = "", *, forced: bool = False) -> Record:
        """Go back to what ran before; what ran is not tried again.

        Args:
            digest: go back only if this release runs or is on trial; empty for whichever does.
            forced: go back below the minimum that the owner has set, too.

        Raises:
            NothingToDoError: it does not, the factory's release runs, or the minimum forbids it.

        """
        state = self.state
        if digest and digest != (state.trial or state.active):
            raise NothingToDoError(f"{digest} does not run; there is nothing to go back from")
        if state.trial:
            return self.reject()
        if not state.active:
            raise NothingToDoError("the factory release runs; there is nothing to go back to")
        if not forced:
            self._check_minimum(state)
        new = replace(state.with_bad(state.active), active=state.previous, previous="")
        return self._write(new)

    def _check_minimum(self, state: Record) -> None:
        """Refuse to go back below the release that the owner has set as the least."""
        running, before = (self._whole(digest) for digest in (state.active, state.previous))
        if running is None:
            return  # it does not run any more: anything is better
        name = f"{running.manifest.name}/{running.manifest.target}"
        least = state.floors.get(f"{MINIMUM}{name}", 0)
        release = before.manifest.release if before is not None else 0
        if release < least:
            before_it = f"release {release}" if release else "the factory's"
            raise NothingToDoError(
                f"{name} goes back to release {least} or later only, and before it ran {before_it}"
            )

    def forgive(self) -> Record:
        """Forget which releases failed here, and what time it was: both are asked for anew.

        A clock that ran ahead while a long-lived stick was taken makes a channel look expired.
        """
        state = self.state
        floors = {name: least for name, least in state.floors.items() if name != TIME}
        if not state.bad and floors == state.floors:
            raise NothingToDoError("no release failed here, and no time is remembered")
        return self._write(replace(state, bad=(), floors=floors))

    def pin(self, *, pinned: bool) -> Record:
        """Hold updates back, or take them again."""
        return self._write(replace(self.state, pinned=pinned))

    def raise_floors(self, floors: Mapping[str, int], root: str = "") -> Record:
        """Remember versions below which nothing is accepted any more; written only if new."""
        state = self.state
        raised = replace(state.raised(floors), root=root or state.root)
        return state if raised == state else self._write(raised)

    def collect(self, keep: Collection[str] = ()) -> int:
        """Remove what no release needs, nor `keep` names: parts, then blobs; return the bytes.

        A release that somebody reads is kept.  Nothing is synced: what a cut brings back is
        collected the next time.
        """
        wanted = self._wanted()
        if wanted is not None:
            wanted |= self._read_by_others(wanted)
        freed = 0
        for folder, kept in ((PARTS, set(keep)), (BLOBS, wanted)):
            if kept is None:
                continue
            for name in self.storage.names(folder):
                if name not in kept and name not in keep:
                    freed += max(0, self.storage.size(f"{folder}/{name}"))
                    self.storage.remove(f"{folder}/{name}")
        return freed

    def _write(self, record: Record) -> Record:
        return records.write(self.storage, record)

    def _wanted(self) -> set[str] | None:
        """Return the blobs that releases need; None if one of them cannot be read to tell."""
        state = self.state
        found: set[str] = set()
        for digest in filter(None, (state.active, state.previous, state.trial)):
            name = digest.removeprefix("sha256:")
            found.add(name)
            try:
                found |= set(self.bundle(digest).blobs())
            except (TrustError, OSError):
                if self.storage.size(f"{BLOBS}/{name}") >= 0:
                    return None
        return found

    def _read_by_others(self, wanted: Collection[str]) -> set[str]:
        """Return the blobs of releases that are none of the record's, and that somebody holds."""
        found: set[str] = set()
        for name in self.storage.names(BLOBS):
            if name in wanted:
                continue
            lock = self.storage.lock(f"{BLOBS}/{name}")
            with suppress(OSError, TrustError, InputError), lock as free:
                if not free:
                    found |= {name, *self.bundle(name).blobs()}
        return found

    def check_wanted(self, digest: str) -> None:
        """Raise a `NothingToDoError` if a release is not to be installed."""
        state = self.state
        if state.pinned:
            raise NothingToDoError("the store is pinned: edgepack-runtime pin --off takes updates")
        if digest == state.active and self._whole(digest):
            raise NothingToDoError(f"{digest} is installed already")
        if digest == state.trial:
            raise NothingToDoError(f"{digest} is on trial already")
        if digest in state.bad:
            raise NothingToDoError(
                f"{digest} failed on this device before, or was taken back; edgepack-runtime retry "
                "lets it be tried again"
            )

    def make_room(self, size: int, keep: Collection[str] = ()) -> None:
        """See that there is room for so many bytes more; what no release needs goes first.

        `keep` names blobs of a release that is on its way.

        Raises:
            DeviceError: there is not.

        """
        parts = (self.storage.size(f"{PARTS}/{name}") for name in keep)
        needed = size - sum(max(0, part) for part in parts) + _MARGIN
        if self.storage.free() < needed:
            self.collect(keep)
        state = self.state
        settled = not state.trial and self._whole(state.active) is not None
        if self.storage.free() < needed and settled:
            self._write(replace(self.state, previous=""))  # better than never to update again
            self.collect(keep)
        if (free := self.storage.free()) < needed:
            raise DeviceError(
                f"the store needs {needed / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free"
            )

    def _whole(self, digest: str) -> Bundle | None:
        try:
            found = self.bundle(digest)
            blobs = found.blobs()
            if all(self.storage.digest(f"{BLOBS}/{name}") == name for name in blobs):
                return found
        except (TrustError, InputError, OSError):
            pass
        return None


def _given_up(state: Record) -> Record:
    """Return the state without its trial; one that is active already makes room again."""
    if state.trial == state.active:
        state = replace(state, active=state.previous, previous="")
    return replace(state, trial="", attempts=0)


def _checked_name(name: str) -> str:
    """Return a blob's name if it is a digest: it becomes part of a path."""
    if not is_digest(name):
        raise TrustError(f"{name[:80]!r} is no sha256")
    return name
