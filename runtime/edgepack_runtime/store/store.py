"""The device's disk: releases, which of them runs, and how a new one takes over.

    install → trial → confirm [→ settle]    the new release runs
                    ↘ reject, or no attempt left → the old one runs, the new one is in the bad list
                    ↘ abandon, or damaged        → the old one runs, the new one may come again

Invariants, whatever happens between two operations:
* what `start` returns is a whole release that was active or is on trial, or the factory's;
* a blob stands under its digest only when all its bytes are durable and were hashed after that;
* the record names a release only when all its blobs do;
* no release is left for one that is damaged;
* floors never fall.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import DeviceError, NothingToDoError, TrustError
from edgepack_runtime.store import record as records
from edgepack_runtime.store.blobs import PARTS, Blobs
from edgepack_runtime.store.chunks import rest
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.record import Record
from edgepack_runtime.store.storage import Disk, Storage
from edgepack_runtime.store.writer import Writer

ATTEMPTS = 3
RELEASE = "release:"  # the floor of this name and NAME/BOARD: no older release is taken
MINIMUM = "minimum:"  # likewise: no rollback goes below that release
ROOT = "root"  # the floor of the root metadata's version
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
        self.blobs = Blobs(storage)
        self._writer = Writer(storage)

    @classmethod
    def at(cls, root: Path) -> Store:
        """Open the store in a folder; nothing is made before there is something to write."""
        return cls(Disk(root))

    @property
    def state(self) -> Record:
        """Read the state that counts now."""
        return records.read(self.storage)

    def install(self, bundle: Bundle, floors: Mapping[str, int] | None = None) -> Record:
        """Copy a bundle's blobs, make them durable, and put the release on trial.

        Raises:
            NothingToDoError: it runs already, is on trial, failed here before, or is held back.
            DeviceError: there is no room.
            TrustError: a blob is not what it should be.
            OSError: the disk refuses; what ran still does.

        """
        self.check_wanted(bundle.digest)
        missing = self.blobs.missing(bundle)
        self.make_room(sum(missing.values()), bundle.blobs())
        state = self.state
        for name, size in missing.items():
            self.blobs.receive(name, size, (), partial(rest, bundle.blob(name)))
        self.storage.sync_folder(BLOBS)
        if not (state.active or state.previous or state.trial):
            self.storage.sync_folder("")  # the folder of the blobs may be new
        new = replace(state, trial=bundle.digest, attempts=ATTEMPTS)
        return records.write(self.storage, new.raised(floors or {}))

    def start(self) -> Started:
        """Say what to load now.  A trial costs an attempt, written before it is returned.

        Never fails because of what the disk holds: a release that is not whole is passed over,
        and if it was on trial, that is no verdict on it.
        """
        state = self.state
        with suppress(OSError):  # what cannot be counted is not tried: the old one runs
            found = self.blobs.whole(state.trial) if state.trial else None
            if found is not None and state.attempts > 0:
                self._write(replace(state, attempts=state.attempts - 1))
                return Started(found, on_trial=True)
            if state.trial:
                self.abandon() if found is None else self.reject()
        return Started(self.running(), on_trial=False)

    def running(self) -> Bundle | None:
        """Return the release that runs, a trial not counted; None for the factory's."""
        state = self.state
        wholes = (self.blobs.whole(digest) for digest in (state.active, state.previous) if digest)
        return next((found for found in wholes if found is not None), None)

    def releases(self) -> list[Bundle]:
        """Return the releases of the record that can be read: active, previous, on trial."""
        state, found = self.state, []
        for digest in filter(None, (state.active, state.previous, state.trial)):
            with suppress(TrustError, OSError):
                found.append(self.blobs.bundle(digest))
        return found

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
                found, now = self.blobs.whole(digest), self.state
                # What was dropped before the lock was there may be half collected.
                if found is not None and digest in (now.active, now.previous):
                    return found
            if self.state.seq == state.seq:
                return None

    def alone(self) -> AbstractContextManager[None]:
        """Be the only writer while the block runs; a thread that is it already goes on.

        Makes the store's folder.  The kernel lets go if this process dies.

        Raises:
            NothingToDoError: another process or thread is at it.
            EdgepackError: it has been for longer than an update takes.

        """
        return self._writer.alone()

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
        return self._give_up(self.state)

    def reject(self) -> Record:
        """Give up the release on trial: what was active goes on, and it is not tried again.

        One that is active already stays, without a verdict, if what ran before is damaged.
        """
        state = self.state
        if not state.trial:
            raise NothingToDoError("no release is on trial")
        stays = state.trial == state.active and self._before_is_damaged(state)
        return self._give_up(state if stays else state.with_bad(state.trial))

    def _give_up(self, state: Record) -> Record:
        """End the trial; one that is active already goes, unless nothing whole would follow it."""
        if state.trial == state.active and not self._before_is_damaged(state):
            state = replace(state, active=state.previous, previous="")
        return self._write(replace(state, trial="", attempts=0))

    def _before_is_damaged(self, state: Record) -> bool:
        return state.previous != "" and self.blobs.whole(state.previous) is None

    def rollback(self, digest: str = "", *, forced: bool = False) -> Record:
        """Go back to what ran before; what ran is not tried again.

        Args:
            digest: go back only if this release runs or is on trial; empty for whichever does.
            forced: go back below the minimum that the owner has set, too.

        Raises:
            NothingToDoError: it does not, the factory's release runs, or the minimum forbids it.
            TrustError: what ran before is damaged.

        """
        state = self.state
        if digest and digest != (state.trial or state.active):
            raise NothingToDoError(f"{digest} does not run; there is nothing to go back from")
        if state.trial in ("", state.active) and self._before_is_damaged(state):
            raise TrustError(
                f"the release before ({state.previous}) is damaged on this disk: what runs stays, "
                "until a newer release comes by edgepack-runtime update or import"
            )
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
        running, before = (self.blobs.whole(digest) for digest in (state.active, state.previous))
        if running is None:
            return  # it does not run any more: anything is better
        name = f"{running.manifest.name}/{running.manifest.target}"
        least = state.floor(f"{MINIMUM}{name}")
        release = before.manifest.release if before is not None else 0
        if release < least:
            before_it = f"release {release}" if release else "the factory's"
            raise NothingToDoError(
                f"{name} goes back to release {least} or later only, and before it ran {before_it}"
            )

    def forgive(self, *, root: bool = False) -> Record:
        """Forget which releases failed here, and what time it was: both are asked for anew.

        A clock that ran ahead while a long-lived stick was taken makes a channel look expired.

        Args:
            root: forget as well which root was accepted, so that the next update trusts the one
                that it is given: for a channel that its owner began again from nothing.

        """
        state = self.state
        gone = {TIME, ROOT} if root else {TIME}
        floors = {name: least for name, least in state.floors.items() if name not in gone}
        new = replace(state, bad=(), floors=floors, root="" if root else state.root)
        if new == state:
            raise NothingToDoError("no release failed here, and no time is remembered")
        return self._write(new)

    def pin(self, *, pinned: bool) -> Record:
        """Hold updates back, or take them again."""
        return self._write(replace(self.state, pinned=pinned))

    def raise_floors(self, floors: Mapping[str, int], root: str = "") -> Record:
        """Remember versions below which nothing is accepted any more; written only if new."""
        state = self.state
        raised = replace(state.raised(floors), root=root or state.root)
        return state if raised == state else self._write(raised)

    def collect(self, keep: Collection[str] = (), *, spare_readers: bool = True) -> int:
        """Remove what no release needs or somebody reads, nor `keep` names; return the bytes."""
        state = self.state
        releases = filter(None, (state.active, state.previous, state.trial))
        return self.blobs.collect(releases, keep, spare_readers=spare_readers)

    def _write(self, record: Record) -> Record:
        return records.write(self.storage, record)

    def check_wanted(self, digest: str) -> None:
        """Raise a `NothingToDoError` if a release is not to be installed."""
        state = self.state
        if state.pinned:
            raise NothingToDoError("the store is pinned: edgepack-runtime pin --off takes updates")
        if digest == state.active and self.blobs.whole(digest):
            raise NothingToDoError(f"{digest} is installed already")
        if digest == state.trial:
            raise NothingToDoError(f"{digest} is on trial already")
        if digest in state.bad:
            raise NothingToDoError(
                f"{digest} failed on this device before, or was taken back; edgepack-runtime retry "
                "lets it be tried again"
            )

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more fit, with some left for the rest of the system."""
        return self.storage.free() >= size + _MARGIN

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
        settled = not state.trial and self.blobs.whole(state.active) is not None
        if self.storage.free() < needed and settled:
            self._write(replace(self.state, previous=""))  # better than never to update again
            self.collect(keep)
        if self.storage.free() < needed:
            self.collect(keep, spare_readers=False)  # any local user can hold a reader's lock
        if (free := self.storage.free()) < needed:
            raise DeviceError(
                f"the store needs {needed / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free"
            )
