"""A device's life, as the store sees it: what tests cut, fail and kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import handmade

from edgepack import channel, keys
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.store import ATTEMPTS, Store
from edgepack_runtime.trial import prove
from edgepack_runtime.update import Policy, Updater
from edgepack_runtime.update.source import Archive, Folder, Source

if TYPE_CHECKING:
    from explorer import Promises


def live(releases: Sequence[Bundle], store: Store, promises: Promises) -> None:
    """First update, a bad one, a good one, floors, back again, collected.

    `promises` says after each step what was acknowledged.
    """
    first, bad, good, _ = releases
    store.raise_floors({"root": 1})  # as an update does before it installs
    promises.floors = {"root": 1}
    _update(store, promises, first, {})
    store.confirm({"release": 1})
    promises.allowed, promises.floors = {first.digest}, {"root": 1, "release": 1}
    _update(store, promises, bad, {})
    promises.allowed = {first.digest, bad.digest}
    store.reject()
    promises.allowed = {first.digest}
    store.collect()
    _update(store, promises, good, {"root": 2})
    promises.attempts = ATTEMPTS
    store.confirm({"release": 3}, settled=False)  # and there is a hook after it
    promises.allowed, promises.floors = {good.digest}, {"root": 2, "release": 3}
    assert store.start().on_trial
    promises.attempts = ATTEMPTS - 1
    store.settle()
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


@dataclass(frozen=True)
class Road:
    """What reaches a device that follows a channel: a stick, then the channel with new keys.

    stick: a signed file with the first release; channel: a folder with the second one, as a delta
    too, signed by keys that replaced those of the stick; root: what the device was shipped with.
    """

    stick: Path
    channel: Path
    root: bytes
    releases: tuple[Bundle, Bundle]


def make_road(place: Path) -> Road:
    """Make the channel and the stick; the releases are small, and differ by a delta."""
    keys.init(place / "keys")
    made = []
    for number in (1, 2):
        weights = bytes((i + (i % 100 == 0) * number) % 256 for i in range(6000))
        path = handmade.bundle(
            place / f"road{number}.epk", extra={"weights.bin": weights},
            change={"release": number, "version": f"1.{number}"},
        )  # fmt: skip
        made.append(Bundle.open(path))
        channel.publish(made[-1], place / "channel", place / "keys", channel.Rollout())
        if number == 1:
            parcel = channel.Parcel("small/any")
            channel.export_file(parcel, place / "channel", place / "stick.epk", place / "keys")
            for name in ("root-1", "targets", "timestamp"):
                channel.rotate(name, place / "channel", place / "keys")
    root = (place / "channel/metadata/1.root.json").read_bytes()
    return Road(place / "stick.epk", place / "channel", root, (made[0], made[1]))


def travel(road: Road, store: Store, promises: Promises) -> None:
    """Import the stick, meet the new root, take the second release as a delta, collect."""
    first, second = road.releases

    def updater(source: Source) -> Updater:
        def proving(bundle: Bundle) -> None:
            promises.attempts = ATTEMPTS - 1  # the start was counted
            prove(bundle)

        policy = Policy(attempts=1, pause=0.0)
        return Updater(store, [source], road.root, "small/any", policy, prove=proving)

    _follow(updater(Archive(road.stick)), promises, first)
    device = updater(Folder(road.channel))
    _follow(device, promises, second)
    assert store.state.floors["root"] == 4
    store.collect()


def _follow(device: Updater, promises: Promises, release: Bundle) -> None:
    """Check, install, prove: what each has acknowledged holds from there on."""
    # A new root may start the count of the other roles anew.
    promises.floors = {key: least for key, least in promises.floors.items() if "@" not in key}
    offer = device.check()
    promises.floors = dict(device.store.state.floors)
    promises.base = next(iter(promises.allowed))
    promises.allowed = promises.allowed | {release.digest}
    promises.attempts = ATTEMPTS
    device.install(offer)
    promises.allowed = {release.digest}
    assert device.try_out() == ""
    promises.floors = dict(device.store.state.floors)
