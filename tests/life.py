"""A device's life, as the store sees it: what tests cut, fail and kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack_runtime.bundle import Bundle
from edgepack_runtime.store import ATTEMPTS, Store

if TYPE_CHECKING:
    from explorer import Promises


def live(releases: Sequence[Bundle], store: Store, promises: Promises) -> None:
    """First update, a bad one, a good one, floors, back again, collected.

    `promises` says after each step what was acknowledged.
    """
    first, bad, good, _ = releases
    _update(store, promises, first, {"root": 1})
    store.confirm({"release": 1})
    promises.allowed, promises.floors = {first.digest}, {"root": 1, "release": 1}
    _update(store, promises, bad, {})
    promises.allowed = {first.digest, bad.digest}
    store.reject()
    promises.allowed = {first.digest}
    store.collect()
    _update(store, promises, good, {"root": 2})
    store.confirm({"release": 3})
    promises.allowed, promises.floors = {good.digest}, {"root": 2, "release": 3}
    store.raise_floors({"timestamp": 9})
    promises.floors = {"root": 2, "release": 3, "timestamp": 9}
    promises.allowed = {good.digest, first.digest}
    store.rollback()
    promises.allowed = {first.digest}
    store.collect()


def _update(store: Store, promises: Promises, release: Bundle, floors: dict[str, int]) -> None:
    """Install and start: once that is acknowledged it starts whole, and each start is counted."""
    promises.base = next(iter(promises.allowed))
    promises.allowed = promises.allowed | {release.digest}
    promises.attempts = ATTEMPTS
    store.install(release, floors)
    promises.allowed, promises.floors = {release.digest}, {**promises.floors, **floors}
    assert store.start().on_trial
    promises.attempts = ATTEMPTS - 1
