"""Cut the power at every operation, and see that the store comes up whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from crash import CrashDisk, State

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.record import Record
from edgepack_runtime.store.store import ATTEMPTS, Store

Work = Callable[[Store, "Promises"], None]


class BrokenPromiseError(AssertionError):
    """A state after a cut breaks what the store promises."""


@dataclass
class Promises:
    """What the store has acknowledged so far: it must hold after any cut.

    allowed: releases that may run now, empty for the factory's; attempts: the most starts that a
    trial may have left; base: what runs when a trial is given up; pinned: None for either;
    refused and welcome: releases that are in the bad list, and that are not; damaged: blobs that
    the disk may have spoilt.
    """

    allowed: set[str] = field(default_factory=lambda: {""})
    floors: Mapping[str, int] = field(default_factory=dict)
    attempts: int = ATTEMPTS
    base: str = ""
    pinned: bool | None = False
    refused: set[str] = field(default_factory=set)
    welcome: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)

    def copy(self) -> Promises:
        """Return what holds now."""
        return Promises(**{name: copy(value) for name, value in vars(self).items()})

    def key(self) -> int:
        """Name what is promised: the same state may be right at one time and wrong at another."""
        sets = (self.allowed, self.refused, self.welcome, self.damaged)
        floors = tuple(sorted(self.floors.items()))
        return hash((*map(frozenset, sets), floors, self.attempts, self.pinned))


@dataclass
class Explorer:
    """Enumerates states after a cut, checks each once, and cuts again while it recovers.

    limit: states tried at one operation; again: one state in so many is cut a second time, 0
    for none.  checked: (state, promises) that held; states: those that differ.
    """

    later: Bundle
    limit: int = 64
    again: int = 8
    seed: int = 0
    drop: frozenset[int] = frozenset()
    checked: set[tuple[int, int]] = field(default_factory=set)
    states: set[int] = field(default_factory=set)
    operations: int = 0

    def run(self, start: State, work: Work, promises: Promises) -> CrashDisk:
        """Do some work on a disk, cutting before each of its operations and after the last."""
        rng = random.Random(self.seed)  # noqa: S311 (a choice, not a secret)
        disk = CrashDisk.of(start, drop=self.drop)

        def cut(_: str) -> None:
            self.operations += 1
            self._check_all(disk, promises.copy(), rng)

        disk.before = cut
        work(Store(disk), promises)
        cut("")
        return disk

    def _check_all(self, disk: CrashDisk, promises: Promises, rng: random.Random) -> None:
        for state in disk.states(self.limit, rng):
            if self._check(state, promises) and self.again and len(self.checked) % self.again == 0:
                self._cut_again(state, promises, rng)

    def _cut_again(self, state: State, promises: Promises, rng: random.Random) -> None:
        """Cut a second time, at every operation of the recovery."""
        disk = CrashDisk.of(state)
        found: list[State] = []
        disk.before = lambda _: found.extend(disk.states(4, rng))
        recover(Store(disk), promises, self.later)
        widened = promises.copy()
        widened.allowed |= {self.later.digest, promises.base}  # recovering gave up the trial
        widened.attempts, widened.pinned = ATTEMPTS, None
        for second in found:
            self._check(second, widened)

    def _check(self, state: State, promises: Promises) -> bool:
        """Check a state unless it was; tell whether it is new."""
        key = (hash(state), promises.key())
        if key in self.checked:
            return False
        recover(Store(CrashDisk.of(state)), promises, self.later)
        self.checked.add(key)
        self.states.add(key[0])
        return True


def recover(store: Store, promises: Promises, later: Bundle) -> None:
    """Start, check every promise, collect, and take the next update."""
    for name in set(store.storage.names(BLOBS)) - promises.damaged:
        if store.storage.digest(f"{BLOBS}/{name}") != name:
            raise BrokenPromiseError(f"blob {name[:12]} is not what its name says")
    started = store.start()
    digest = started.bundle.digest if started.bundle else ""
    if digest not in promises.allowed:
        raise BrokenPromiseError(f"{digest or 'the factory release'} runs, not {promises.allowed}")
    check_record(store.state, promises)
    if started.on_trial:
        if store.state.attempts >= promises.attempts:
            raise BrokenPromiseError("a start was not counted")
        store.reject()
    store.pin(pinned=False)
    store.collect()
    if not promises.damaged:
        check_no_leak(store)
    if digest == later.digest or later.digest in (store.state.active, *store.state.bad):
        return
    store.install(later)
    again = store.start()
    if again.bundle is None or again.bundle.digest != later.digest or not again.on_trial:
        raise BrokenPromiseError("the next update does not start")
    store.confirm()


def check_record(state: Record, promises: Promises) -> None:
    """See that the record says of floors, pin and bad releases what was acknowledged."""
    for name, least in promises.floors.items():
        if state.floors.get(name, 0) < least:
            raise BrokenPromiseError(f"floor {name} fell below {least}")
    if promises.pinned not in (None, state.pinned):
        raise BrokenPromiseError(f"pinned is {state.pinned}, not {promises.pinned}")
    if lost := promises.refused - set(state.bad):
        raise BrokenPromiseError(f"{lost} may be tried again")
    if kept := promises.welcome & set(state.bad):
        raise BrokenPromiseError(f"{kept} may not be tried again")


def check_no_leak(store: Store) -> None:
    """Nothing is left but what a release needs."""
    state = store.state
    wanted: set[str] = set()
    for digest in filter(None, (state.active, state.previous, state.trial)):
        wanted |= set(store.blobs.bundle(digest).blobs())
    if extra := set(store.storage.names(BLOBS)) - wanted:
        raise BrokenPromiseError(f"{len(extra)} blobs leaked")
    if store.storage.names(PARTS):
        raise BrokenPromiseError("a part leaked")


def bundles(folder: Path, count: int) -> Sequence[Bundle]:
    """Return small bundles that share some blobs and differ in others."""
    import handmade

    return [
        Bundle.open(
            handmade.bundle(
                folder / f"release{i}.epk",
                change={"version": f"1.{i}", "release": i + 1},
                extra={"extra.bin": bytes([i]) * 40, "common.bin": b"same" * 10},
            )
        )
        for i in range(count)
    ]
