"""Disks with room for a release and little more."""

from __future__ import annotations

import errno
import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet import NAME, light_change, new_device, publish, take_update

from edgepack.channel import releases
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.storage import Disk
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.delta import HEADER, MAGIC, NEW, PIECE, RAW
from edgepack_runtime.update.download import Download
from edgepack_runtime.update.source import Folder, Http, Link
from edgepack_runtime.update.trust import Delta
from edgepack_runtime.update.updater import Updater

if TYPE_CHECKING:
    from server import Server

_MARGIN = 1 << 20  # what a store leaves free


class SmallDisk(Disk):
    """A disk of so many bytes, of which `claims` more are said to be free than there are."""

    def __init__(self, root: Path, size: int, claims: int = 0) -> None:
        super().__init__(root)
        self._size = size
        self._claims = claims

    def free(self) -> int:
        """Return what is free, and what is claimed."""
        return self._left() + self._claims

    def append(self, path: str, content: bytes) -> None:
        """Write what there is room for."""
        left = self._left()
        super().append(path, content[:left])
        if len(content) > left:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    def _left(self) -> int:
        return self._size - used(self.root)


def used(root: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


class Change:
    """A device with the first release, and a second one that a delta makes."""

    def __init__(self, place: Path, server: Server) -> None:
        self.device = new_device(place, Http(server.url, Link()))
        take_update(self.device)
        new = light_change(place, 2)
        publish(place, new)
        self.delta: dict[str, Any] = releases.releases(place / "channel")[NAME]["deltas"][0]
        self.room = used(place / "device") + self._missing(new)
        self.asked = server.asked

    def _missing(self, new: Bundle) -> int:
        return sum(self.device.store.blobs.missing(new).values())

    def on(self, disk: Disk) -> Updater:
        """Return the device with another disk."""
        return replace(self.device, store=Store(disk))


@pytest.mark.parametrize("fits", [True, False])
def test_a_delta_is_taken_where_there_is_room_for_it_too(
    place: Path, server: Server, *, fits: bool
) -> None:
    """With room for the release alone the whole blob comes; nothing is paid for the delta."""
    change = Change(place, server)
    beside = change.delta["size"] if fits else change.delta["size"] // 2
    disk = SmallDisk(place / "device", change.room + _MARGIN + beside)
    take_update(change.on(disk))
    assert (f"/{BLOBS}/{change.delta['sha256']}" in change.asked) == fits
    assert (f"/{BLOBS}/{change.delta['blob']}" in change.asked) != fits


def test_a_disk_that_fills_up_during_a_delta_takes_the_whole_blob(
    place: Path, server: Server
) -> None:
    """The delta goes, and its room is used for what it would have made."""
    change = Change(place, server)
    disk = SmallDisk(place / "device", change.room + change.delta["size"] // 2, claims=1 << 30)
    take_update(change.on(disk))
    assert f"/{BLOBS}/{change.delta['sha256']}" in change.asked
    assert f"/{BLOBS}/{change.delta['blob']}" in change.asked


def test_a_delta_does_not_stay(place: Path, server: Server) -> None:
    """Once it has made its blob it is removed, without waiting for the next collection."""
    change = Change(place, server)
    take_update(change.device)
    assert f"/{BLOBS}/{change.delta['sha256']}" in change.asked
    assert change.delta["sha256"] not in change.device.store.storage.names(BLOBS)
    assert change.device.store.storage.names(PARTS) == []


def test_memory_does_not_grow_with_a_delta(tmp_path: Path) -> None:
    """Neither the delta nor its base is held whole while a blob is made of them."""
    base, parts = bytes(32 << 20), [bytes([i]) * PIECE for i in range(32)]
    new = b"".join(parts)
    packed = MAGIC + b"".join(HEADER.pack(NEW, RAW, PIECE, 0, PIECE) + part for part in parts)
    names = [hashlib.sha256(content).hexdigest() for content in (base, new, packed)]
    for folder, name, content in (("store", names[0], base), ("channel", names[2], packed)):
        (tmp_path / folder / BLOBS).mkdir(parents=True)
        (tmp_path / folder / BLOBS / name).write_bytes(content)
    delta = Delta(names[0], names[1], names[2], len(packed))
    download = Download(
        Store.at(tmp_path / "store"), [Folder(tmp_path / "channel")], 1, 0.0, lambda *_: None
    )
    tracemalloc.start()
    try:
        download.blobs({names[1]: len(new)}, {}, [delta])
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "store" / BLOBS / names[1]).read_bytes() == new
