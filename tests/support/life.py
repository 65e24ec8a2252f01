"""A device's life, as the store sees it: what tests cut, fail and kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import handmade

from edgepack.channel import carry, keys
from edgepack.channel import releases as channel
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import DeviceError
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.record import TIME
from edgepack_runtime.store.room import make_room
from edgepack_runtime.store.store import ATTEMPTS, Store
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Archive, Folder, Source
from edgepack_runtime.update.trial import prove
from edgepack_runtime.update.trust import Offer
from edgepack_runtime.update.updater import Updater

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


def settle(releases: Sequence[Bundle], store: Store, promises: Promises) -> None:
    """Two updates, one after the other: the second one runs, the first one is kept."""
    first, _, good, _ = releases
    for release in (first, good):
        _update(store, promises, release, {TIME: 9})
        store.confirm()


def tend(releases: Sequence[Bundle], store: Store, promises: Promises) -> None:
    """What happens to a settled store between updates: hands, bad sectors and a full disk."""
    first, bad, good, _ = releases
    promises.pinned = None
    store.pin(pinned=True)
    promises.pinned = True
    assert store.state.pinned
    promises.pinned = None
    store.pin(pinned=False)
    promises.pinned = False
    _put_off(store, promises, bad)
    store.collect()
    _forgive(store, promises, bad)
    own = next(file.sha256 for file in good.manifest.files if file.path == "extra.bin")
    _repair(store, promises, good, first.digest, own)
    promises.allowed = {good.digest}
    with suppress(DeviceError):  # no disk has as much
        make_room(store, 1 << 60)
    assert not store.state.previous
    _repair(store, promises, good, "", good.digest.removeprefix("sha256:"))
    _put_off(store, promises, bad, switched=True)
    store.collect()


def _put_off(store: Store, promises: Promises, release: Bundle, *, switched: bool = False) -> None:
    """Take a release and give it up without a verdict, maybe after it was made the active one."""
    promises.welcome = set()  # who recovers rejects it
    _update(store, promises, release, {})
    if switched:
        promises.attempts = ATTEMPTS
        store.confirm(settled=False)
    promises.allowed = {release.digest, promises.base}
    store.abandon()
    promises.allowed, promises.welcome = {promises.base}, {release.digest}
    assert release.digest not in store.state.bad


def _forgive(store: Store, promises: Promises, release: Bundle) -> None:
    """Reject a release, then let it and the time be forgotten."""
    promises.welcome = set()
    _update(store, promises, release, {})
    promises.allowed = {release.digest, promises.base}
    store.reject()
    promises.allowed, promises.refused = {promises.base}, {release.digest}
    promises.refused, promises.floors = set(), {}
    store.forgive()
    promises.welcome = {release.digest}


def _repair(store: Store, promises: Promises, release: Bundle, instead: str, sha256: str) -> None:
    """Flip bits of a blob of what runs, so that `instead` does, and let it come again."""
    promises.damaged = {sha256}
    promises.allowed = {release.digest, instead}
    path = f"{BLOBS}/{sha256}"
    store.storage.overwrite(path, bytes(byte ^ 1 for byte in store.storage.read(path)))
    assert store.start().bundle != release
    digest = release.digest.removeprefix("sha256:")
    said = release.manifest
    name, size = f"{said.name}/{said.target}", release.blobs()[digest]
    offer = Offer(digest, size, said.release, said.version, 100, ())
    Updater(store, [_Carrier(release)], b"", name, Policy(attempts=1, pause=0.0)).install(offer)
    promises.allowed, promises.damaged = {release.digest}, set()


@dataclass(frozen=True)
class _Carrier:
    """A source of the blobs of one release."""

    release: Bundle

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a blob from `start` on."""
        yield bytes(self.release.blob(path.removeprefix(f"{BLOBS}/")))[start:]


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
            place / f"road{number}.epk",
            extra={"weights.bin": weights},
            change={"release": number, "version": f"1.{number}"},
        )
        made.append(Bundle.open(path))
        channel.publish(made[-1], place / "channel", place / "keys", channel.Rollout())
        if number == 1:
            parcel = carry.Parcel("small/any")
            carry.export_file(parcel, place / "channel", place / "stick.epk", place / "keys")
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
