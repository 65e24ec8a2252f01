"""Updaters, loaders and a collector at one store, in any order of their operations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from explorer import bundles, check_no_leak
from turns import Turns, TurnsDisk

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import NothingToDoError
from edgepack_runtime.store.store import Store

IN_TEST, IN_ALL = 60, 1000


def update(store: Store, releases: Sequence[Bundle], inside: list[str]) -> None:
    """Take two releases, one after the other; while another process is at it, come again."""
    for release in releases:
        for _ in range(50):
            with suppress(NothingToDoError), store.alone():
                inside.append(release.digest)
                assert len(inside) == 1, "two processes write at once"
                try:
                    take(store, release)
                finally:
                    inside.clear()
                break


def take(store: Store, release: Bundle) -> None:
    """Install, start, confirm, collect; nothing if another one was faster."""
    store.install(release)
    started = store.start()
    assert started.on_trial
    assert started.bundle is not None
    assert started.bundle.digest == release.digest
    store.confirm()
    store.collect()


def collect(store: Store) -> None:
    """Collect, unless another process is at it."""
    for _ in range(4):
        with suppress(NothingToDoError), store.alone():
            store.collect()


def read(store: Store, seen: list[str]) -> None:
    """Load what runs again and again, every byte of it: it stays there while it is read."""
    for _ in range(3):
        with store.reading() as bundle:
            assert bundle is not None
            for _ in range(15):
                for digest in bundle.blobs():
                    bundle.blob(digest)
            seen.append(bundle.digest)


def play(seed: int, folder: Path, first: Path, releases: Sequence[Bundle]) -> set[str]:
    """Play one schedule; return the releases that the readers came upon."""
    root = folder / str(seed)
    shutil.copytree(first, root)
    turns = Turns(seed)
    stores = [Store(TurnsDisk(root, turns)) for _ in range(5)]
    inside: list[str] = []
    seen: list[str] = []
    turns.run(
        [
            lambda: update(stores[0], releases[1:], inside),
            lambda: update(stores[1], releases[1:], inside),
            lambda: read(stores[2], seen),
            lambda: read(stores[3], seen),
            lambda: collect(stores[4]),
        ]
    )
    store = Store.at(root)
    assert store.state.active in {release.digest for release in releases[1:]}
    assert store.state.trial == ""
    store.collect()
    check_no_leak(store)
    assert store.running() is not None
    shutil.rmtree(root)
    return set(seen)


def play_all(folder: Path, schedules: int) -> None:
    """Play many; among them are readers that come upon each of the releases."""
    releases = bundles(folder, 3)
    first = Store.at(folder / "first")
    with first.alone():
        take(first, releases[0])
    seen = [play(seed, folder, folder / "first", releases) for seed in range(schedules)]
    assert set.union(*seen) == {release.digest for release in releases}


def test_one_writer_and_no_torn_read(tmp_path: Path) -> None:
    """One process writes at a time, and what is read is whole to its last byte."""
    play_all(tmp_path, IN_TEST)


@pytest.mark.slow
def test_one_writer_in_a_thousand_schedules(tmp_path: Path) -> None:
    """The same, a thousand times."""
    play_all(tmp_path, IN_ALL)
