"""A channel, its releases and the devices that follow it, small enough for tests."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade

from edgepack.channel import releases
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Folder, open_source
from edgepack_runtime.update.updater import Updater

NAME = "small/any"

Command = Callable[..., tuple[int, dict[str, Any]]]
"""A command on the store of a place: its exit code, and its answer or error."""

ONCE = Policy(attempts=1, pause=0.0)

BIG = bytes(range(256)) * 4096 * 3 + b"end"  # three chunks and a bit


def make_bundle(folder: Path, release: int, **change: Any) -> Bundle:
    """Return a release with three MiB of weights, and a file that is its own."""
    extra = {"weights.bin": BIG, "own.bin": bytes([release]) * 50}
    said = {"release": release, "version": f"1.{release}", **change}
    return Bundle.open(handmade.bundle(folder / f"r{release}.epk", change=said, extra=extra))


def publish(place: Path, bundle: Bundle, percent: int = 100, cohorts: tuple[str, ...] = ()) -> str:
    """Publish a release in the channel of a place; return its target's name."""
    rollout = releases.Rollout(percent, cohorts)
    return releases.publish(bundle, place / "channel", place / "keys", rollout)


def new_device(
    place: Path, source: Any = None, policy: Policy = ONCE, channel_of: Path | None = None
) -> Updater:
    """Return the device of a place, as it comes up; `channel_of`: the place of its channel."""
    root = ((channel_of or place) / "channel/metadata/1.root.json").read_bytes()
    found = source or Folder(place / "channel")
    return Updater(Store.at(place / "device"), [found], root, NAME, policy)


def take_update(device: Updater) -> str:
    """Take what the channel offers and prove it; return its digest."""
    bundle = device.install(device.check())
    assert device.try_out() == ""
    return bundle.digest


def as_file(folder: Path, out: Path) -> Path:
    """Put a channel into an archive as it is, whoever signed it."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted((folder / "metadata").iterdir()):
            archive.add(path, f"metadata/{path.name}")
        for path in sorted((folder / "blobs").iterdir()):
            archive.add(path, f"blobs/sha256/{path.name}")
    return out


def light_change(place: Path, release: int) -> Bundle:
    """A release whose weights differ from the first one's by a step here and there."""
    weights = bytearray(BIG)
    for at in range(0, len(weights), 997):
        weights[at] = (weights[at] + 1) % 256
    extra = {"weights.bin": bytes(weights), "own.bin": bytes([release]) * 50}
    change = {"release": release, "version": f"1.{release}"}
    path = handmade.bundle(place / f"light{release}.epk", change=change, extra=extra)
    return Bundle.open(path)


def bad_release(place: Path, release: int) -> Bundle:
    """Return a release whose golden outputs do not come out."""
    golden = {"inputs": ["turn on"], "outputs": [{"shape": [3], "data": [0.0, 0.5, 0.5]}]}
    path = handmade.bundle(
        place / f"bad{release}.epk",
        change={"release": release, "version": f"1.{release}"},
        extra={"golden.json": json.dumps(golden).encode()},
    )
    return Bundle.open(path)


def follow(folder: Path, address: str) -> Updater:
    """Return a device that follows a channel, and trusts its first root."""
    source = open_source(address)
    root = b"".join(source.fetch("metadata/1.root.json"))
    return Updater(Store.at(folder), [source], root, NAME, ONCE)


def small_release(place: Path, release: int) -> Bundle:
    """Return a release without weights."""
    change = {"release": release, "version": f"1.{release}"}
    return Bundle.open(handmade.bundle(place / f"s{release}.epk", change=change))
