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

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import NothingToDoError, TrustError
from edgepack_runtime.store import record as records
from edgepack_runtime.store.chunks import rest
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.reader import Reader
from edgepack_runtime.store.record import MINIMUM, Record
from edgepack_runtime.store.room import collect, make_room
from edgepack_runtime.store.storage import Storage
from edgepack_runtime.store.writer import Writer

ATTEMPTS = 3


@dataclass(frozen=True)
class Started:
    """What a device should load: a release of the store, or None for the factory's.

    on_trial: it has to prove itself; call `confirm` or `reject`.
    """

    bundle: Bundle | None
    on_trial: bool


class Store(Reader):
    """A store that is written to, by one writer at a time."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._writer = Writer(storage)

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
        make_room(self, sum(missing.values()), bundle.blobs())
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
        new = replace(state, active=state.trial, previous=state.active, attempts=ATTEMPTS)
        return self._write((new.settled() if settled else new).raised(floors or {}))

    def settle(self) -> Record:
        """Say that the active release has stood what came after the switch."""
        return self._write(self.state.settled())

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
        stays = state.trial == state.active and self.before_is_damaged()
        return self._give_up(state if stays else state.with_bad(state.trial))

    def _give_up(self, state: Record) -> Record:
        """End the trial; one that is active already goes, unless nothing whole would follow it."""
        if state.trial == state.active and not self.before_is_damaged():
            state = replace(state, active=state.previous, previous="")
        return self._write(state.settled())

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
        _check_way_back(self, digest)
        if state.trial:
            return self.reject()
        if not forced:
            _check_minimum(self)
        new = replace(state.with_bad(state.active), active=state.previous, previous="")
        return self._write(new)

    def forgive(self, *, root: bool = False) -> Record:
        """Forget which releases failed here, and what time it was: both are asked for anew.

        A clock that ran ahead while a long-lived stick was taken makes a channel look expired.

        Args:
            root: forget as well which root was accepted, so that the next update trusts the one
                that it is given: for a channel that its owner began again from nothing.

        """
        new = self.state.forgiven(root=root)
        if new == self.state:
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
        return collect(self, keep, spare_readers=spare_readers)

    def _write(self, record: Record) -> Record:
        return records.write(self.storage, record)


def _check_way_back(store: Store, digest: str) -> None:
    """Refuse to go back from what does not run, or to what is not there."""
    state = store.state
    if digest and digest != (state.trial or state.active):
        raise NothingToDoError(f"{digest} does not run; there is nothing to go back from")
    if state.trial in ("", state.active) and store.before_is_damaged():
        raise TrustError(
            f"the release before ({state.previous}) is damaged on this disk: what runs stays, "
            "until a newer release comes by edgepack-runtime update or import"
        )
    if not (state.trial or state.active):
        raise NothingToDoError("the factory release runs; there is nothing to go back to")


def _check_minimum(store: Store) -> None:
    """Refuse to go back below the release that the owner has set as the least."""
    state = store.state
    running, before = (store.blobs.whole(digest) for digest in (state.active, state.previous))
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
