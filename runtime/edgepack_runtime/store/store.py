"""The device's disk: releases, which of them runs, and how a new one takes over.

    install → trial → confirm [→ settle]    the new release runs
                    ↘ reject, or no attempt left → the old one runs, the new one is in the bad list
                    ↘ abandon, or damaged        → the old one runs, the new one may come again

Invariants, whatever happens between two operations:
* `start` returns a whole release that was active or is on trial, or the factory's;
* a blob has its digest as its name only if all its bytes are durable and were hashed after that;
* the record names a release only if all its blobs have their names;
* a release is never given up for a damaged one;
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
    """What a device should load."""

    bundle: Bundle | None
    """A release of the store; None for the factory's."""
    on_trial: bool
    """It has to prove itself: call `confirm` or `reject`."""


class Store(Reader):
    """A store for writing, by one writer at a time."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._writer = Writer(storage)

    def install(self, bundle: Bundle, floors: Mapping[str, int] | None = None) -> Record:
        """Copy a bundle's blobs, make them durable, and put the release on trial.

        Raises:
            NothingToDoError: it runs already, is on trial or failed here, or the store is pinned.
            DeviceError: there is no room.
            TrustError: a blob is not what it should be.
            OSError: the disk reports an error; the release before still runs.

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
        """Say what to load now.  A trial costs an attempt, which is written before this returns.

        This never fails because of what the disk holds.  A release that is not whole is passed
        over; if it was on trial, it is not rejected for that.
        """
        state = self.state
        with suppress(
            OSError
        ):  # an attempt that cannot be counted is not made: the old release runs
            found = self.blobs.whole(state.trial) if state.trial else None
            if found is not None and state.attempts > 0:
                self._write(replace(state, attempts=state.attempts - 1))
                return Started(found, on_trial=True)
            if state.trial:
                self.abandon() if found is None else self.reject()
        return Started(self.running(), on_trial=False)

    def alone(self) -> AbstractContextManager[None]:
        """Be the only writer while the block runs; a thread that already is can nest this.

        Makes the store's folder.  The kernel releases the lock if this process dies.

        Raises:
            NothingToDoError: another process or thread is writing.
            EdgepackError: it has been writing for longer than an update takes.

        """
        return self._writer.alone()

    def confirm(self, floors: Mapping[str, int] | None = None, *, settled: bool = True) -> Record:
        """Make the release on trial the active one, and the active one the previous one.

        Args:
            floors: floors to raise in the same write.
            settled: there is nothing to wait for.  Otherwise (with a hook after the switch) the
                active release stays on trial until `settle`, or until `reject`, which goes back.

        """
        state = self.state
        if not state.trial:
            raise NothingToDoError("no release is on trial")
        new = replace(state, active=state.trial, previous=state.active, attempts=ATTEMPTS)
        return self._write((new.settled() if settled else new).raised(floors or {}))

    def settle(self) -> Record:
        """End the trial of the active release, after the hook that follows the switch passed."""
        return self._write(self.state.settled())

    def abandon(self) -> Record:
        """Give up the release on trial for now: it may be tried again."""
        return self._give_up(self.state)

    def reject(self) -> Record:
        """Give up the release on trial for good; the active release goes on running.

        If the release on trial is already active and the one before is damaged, it stays active
        and is not put in the bad list.
        """
        state = self.state
        if not state.trial:
            raise NothingToDoError("no release is on trial")
        stays = state.trial == state.active and self.before_is_damaged()
        return self._give_up(state if stays else state.with_bad(state.trial))

    def _give_up(self, state: Record) -> Record:
        """End the trial; an active release gives way, unless the previous one is damaged."""
        if state.trial == state.active and not self.before_is_damaged():
            state = replace(state, active=state.previous, previous="")
        return self._write(state.settled())

    def rollback(self, digest: str = "", *, forced: bool = False) -> Record:
        """Go back to the previous release; the one that ran is not tried again.

        Args:
            digest: go back only if this release runs or is on trial; empty for any release.
            forced: go back even below the minimum that the owner has set.

        Raises:
            NothingToDoError: `digest` does not run, the factory's release runs, or the minimum
                forbids it.
            TrustError: the previous release is damaged.

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
        """Forget which releases failed here, and the remembered time.

        A channel looks expired if the clock ran ahead when a long-lived stick was accepted.

        Args:
            root: also forget which root was accepted, so that the next update trusts the root it
                is given.  This is for a channel that its owner started again from scratch.

        """
        new = self.state.forgiven(root=root)
        if new == self.state:
            raise NothingToDoError("no release failed here, and no time is remembered")
        return self._write(new)

    def pin(self, *, pinned: bool) -> Record:
        """Hold updates back, or allow them again."""
        return self._write(replace(self.state, pinned=pinned))

    def raise_floors(self, floors: Mapping[str, int], root: str = "") -> Record:
        """Remember the lowest versions to accept from now on; write only if something changed."""
        state = self.state
        raised = replace(state.raised(floors), root=root or state.root)
        return state if raised == state else self._write(raised)

    def collect(self, keep: Collection[str] = (), *, spare_readers: bool = True) -> int:
        """Remove unneeded blobs, as `room.collect` does; return the number of bytes freed."""
        return collect(self, keep, spare_readers=spare_readers)

    def _write(self, record: Record) -> Record:
        return records.write(self.storage, record)


def _check_way_back(store: Store, digest: str) -> None:
    """Refuse to go back from a release that does not run, or to one that is not there."""
    state = store.state
    if digest and digest != (state.trial or state.active):
        raise NothingToDoError(f"{digest} does not run; there is nothing to go back from")
    if state.trial in ("", state.active) and store.before_is_damaged():
        raise TrustError(
            f"the release before ({state.previous}) is damaged on this disk, so the running one "
            "stays: take a newer release with edgepack-runtime update or import"
        )
    if not (state.trial or state.active):
        raise NothingToDoError("the factory release runs; there is nothing to go back to")


def _check_minimum(store: Store) -> None:
    """Refuse to go back below the minimum release that the owner has set."""
    state = store.state
    running, before = (store.blobs.whole(digest) for digest in (state.active, state.previous))
    if running is None:
        return  # it cannot run any more: anything is better
    name = f"{running.manifest.name}/{running.manifest.target}"
    least = state.floor(f"{MINIMUM}{name}")
    release = before.manifest.release if before is not None else 0
    if release < least:
        before_it = f"release {release}" if release else "the factory image"
        raise NothingToDoError(
            f"{name} cannot roll back: the minimum is release {least} and the previous one is "
            f"{before_it}"
        )
