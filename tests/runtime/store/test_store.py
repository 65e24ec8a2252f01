"""The store under power cuts: at every operation, twice, and with any one sync left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from crash import CrashDisk, State
from explorer import BrokenPromiseError, Explorer, Promises, bundles, check_no_leak
from life import Road, live, make_road, settle, tend, travel

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.store.store import Store

Releases = Sequence[Bundle]
FRESH: State = ()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Four small releases that share blobs."""
    return bundles(tmp_path_factory.mktemp("releases"), 4)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A stick and a channel whose keys were replaced."""
    return make_road(tmp_path_factory.mktemp("road"))


def _explore(releases: Releases, explorer: Explorer) -> Explorer:
    explorer.run(FRESH, lambda store, promises: live(releases, store, promises), Promises())
    return explorer


def test_a_cut_at_any_operation_leaves_a_whole_release(releases: Releases) -> None:
    """10,000 states and more, a second cut included: old or new, floors kept, nothing leaked."""
    explorer = _explore(releases, Explorer(later=releases[3], limit=12))
    assert explorer.operations > 60
    assert len(explorer.states) >= 10_000


@pytest.mark.slow
def test_a_hundred_thousand_states(releases: Releases) -> None:
    """The same, ten times as deep."""
    explorer = _explore(releases, Explorer(later=releases[3], limit=144))
    assert len(explorer.states) >= 100_000


def test_a_cut_on_the_road_leaves_a_whole_release(releases: Releases, road: Road) -> None:
    """USB import, rotated roots, a delta: whatever a cut leaves, old or new starts whole."""
    explorer = Explorer(later=releases[3], limit=12)
    explorer.run(FRESH, lambda store, promises: travel(road, store, promises), Promises())
    assert explorer.operations > 60
    assert len(explorer.states) > 3_000


def _tended(releases: Releases, explorer: Explorer) -> CrashDisk:
    """Explore what happens to a store between updates."""
    disk, promises = CrashDisk(), Promises()
    settle(releases, Store(disk), promises)
    return explorer.run(disk.now(), lambda store, said: tend(releases, store, said), promises)


def test_a_cut_between_updates_leaves_a_whole_release(releases: Releases) -> None:
    """Pin, put off, forgive, repair, give up the release before: what was acknowledged holds."""
    explorer = Explorer(later=releases[3], limit=8)
    _tended(releases, explorer)
    assert explorer.operations > 60
    assert len(explorer.states) > 3_000


def test_every_sync_between_updates_is_needed(releases: Releases) -> None:
    """The same for what pins, repairs and the like write."""
    sound = Explorer(releases[3], 48, 0)
    survivors = []
    for number in range(1, _tended(releases, sound).syncs + 1):
        drop = frozenset({number})
        try:
            _tended(releases, Explorer(releases[3], 48, 0, drop=drop, checked=set(sound.checked)))
        except (BrokenPromiseError, EdgepackError, FileNotFoundError):
            continue
        survivors.append(number)
    assert survivors == []


def _syncs(releases: Releases) -> int:
    disk = CrashDisk()
    live(releases, Store(disk), Promises())
    return disk.syncs


def test_every_sync_is_needed(releases: Releases) -> None:
    """With any one of them dropped, some cut breaks a promise: the explorer sees each."""
    count = _syncs(releases)
    assert count > 20
    survivors = []
    sound = _explore(releases, Explorer(later=releases[3], limit=48, again=0)).checked
    for number in range(1, count + 1):
        drop = frozenset({number})
        try:
            _explore(releases, Explorer(releases[3], 48, 0, drop=drop, checked=set(sound)))
        except (BrokenPromiseError, EdgepackError, FileNotFoundError):
            continue
        survivors.append(number)
    assert survivors == []


def test_every_sync_of_the_road_is_needed(releases: Releases, road: Road) -> None:
    """The same for what updates write."""
    disk = CrashDisk()
    travel(road, Store(disk), Promises())
    survivors = []
    for number in range(1, disk.syncs + 1):
        explorer = Explorer(releases[3], 48, 0, drop=frozenset({number}))
        try:
            explorer.run(FRESH, lambda store, promises: travel(road, store, promises), Promises())
        except (BrokenPromiseError, EdgepackError, FileNotFoundError):
            continue
        survivors.append(number)
    assert survivors == []


def test_a_life_without_cuts(releases: Releases) -> None:
    """The same work on a good disk ends where it should."""
    disk = CrashDisk()
    store = Store(disk)
    live(releases, store, Promises())
    started = store.start()
    assert started.bundle is not None
    assert started.bundle.digest == releases[0].digest
    assert store.state.bad == (releases[1].digest, releases[2].digest)
    check_no_leak(store)
