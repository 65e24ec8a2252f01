"""Sectors that cannot be read any more: an error where the disk is read, a signal where mapped."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fleet import BIG, NAME, ONCE, light_change, make_bundle, new_device, publish, take_update

from edgepack.channel import releases
from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.errors import LinkError
from edgepack_runtime.store.storage import Disk
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.source import Folder
from edgepack_runtime.update.updater import Updater


class SignalError(BaseException):
    """SIGBUS, which ends the process."""


class BadDisk(Disk):
    """A disk on which some files have a bad sector: bad is {path: its offset}."""

    def __init__(self, root: Path, bad: dict[str, int]) -> None:
        super().__init__(root)
        self._bad = bad

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Read, unless the range touches the bad sector."""
        end = start + size if size >= 0 else 1 << 60
        if path in self._bad and start <= self._bad[path] < end:
            raise OSError(errno.EIO, "Input/output error", path)
        return super().read(path, size, start)

    def digest(self, path: str) -> str:
        """Hash, unless there is a bad sector."""
        self.read(path)
        return super().digest(path)

    def map(self, path: str) -> memoryview:
        """Map; a bad sector is met at the first look."""
        if path in self._bad:
            raise SignalError(path)
        return super().map(path)

    def remove(self, path: str) -> None:
        """Remove: what is written next has other sectors."""
        super().remove(path)
        self._bad.pop(path, None)

    def truncate(self, path: str, size: int) -> None:
        """Cut: what is written next has other sectors."""
        super().truncate(path, size)
        if path in self._bad and size <= self._bad[path]:
            del self._bad[path]


def on_bad_disk(place: Path, bad: dict[str, int]) -> Updater:
    """Return the device of a place, whose disk has gone bad."""
    root = (place / "channel/metadata/1.root.json").read_bytes()
    store = Store(BadDisk(place / "device", bad))
    return Updater(store, [Folder(place / "channel")], root, NAME, ONCE)


def test_any_blob_may_have_a_bad_sector(place: Path) -> None:
    """Whichever file of the running release it is, the update after it repairs or replaces it."""
    first = take_update(new_device(place))
    blobs = sorted(path.name for path in (place / "device/blobs").iterdir())
    for name in blobs:
        device = on_bad_disk(place, {f"blobs/{name}": 7})
        assert device.store.running() is None
        assert device.install(device.check()).digest == first
        assert device.store.running() is not None


@pytest.mark.parametrize("what", ["base", "delta"])
def test_a_delta_with_a_bad_sector_is_no_end(place: Path, what: str) -> None:
    """Neither a base nor a delta that cannot be read ends the update."""
    take_update(new_device(place))
    publish(place, light_change(place, 2))
    said = releases.releases(place / "channel")[NAME]["deltas"][0]
    name = said["base"] if what == "base" else said["sha256"]
    device = on_bad_disk(place, {f"blobs/{name}": 100})
    if what == "delta":
        (place / "device/blobs" / name).write_bytes((place / "channel/blobs" / name).read_bytes())
    assert take_update(device)


def test_a_sector_that_goes_bad_within_a_delta(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base was whole when it was hashed: the whole blob is taken all the same."""
    take_update(new_device(place))
    publish(place, light_change(place, 2))
    said = releases.releases(place / "channel")[NAME]["deltas"][0]
    device = on_bad_disk(place, {f"blobs/{said['base']}": CHUNK + 5})
    monkeypatch.setattr(BadDisk, "digest", Disk.digest)
    assert take_update(device)


def test_a_part_is_kept_up_to_its_bad_sector(place: Path) -> None:
    """What came before it does not come again."""
    device = new_device(place)
    offer = device.check()
    weights = max((place / "channel/blobs").iterdir(), key=lambda path: path.stat().st_size)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: 2 * CHUNK + 100])
    with pytest.raises(LinkError):
        device.install(offer)
    weights.write_bytes(whole)
    part = f"parts/{weights.name}"
    assert device.store.storage.size(part) == 2 * CHUNK
    asked: list[int] = []
    again = on_bad_disk(place, {part: CHUNK + 5})
    fetch = again.sources[0].fetch

    class Counting:
        def fetch(self, path: str, start: int = 0) -> object:
            asked.append(start)
            return fetch(path, start)

    updater = Updater(again.store, [Counting()], again.root, NAME, ONCE)  # type: ignore[list-item]
    assert take_update(updater)
    assert CHUNK in asked
    assert len(BIG) > 2 * CHUNK


def test_a_record_of_a_release_that_cannot_be_read_frees_nothing(place: Path) -> None:
    """Collecting beside a bad sector removes nothing that could still be needed, and no signal."""
    take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    digest = take_update(new_device(place))
    device = on_bad_disk(place, {f"blobs/{digest.removeprefix('sha256:')}": 3})
    assert device.store.collect() == 0
    assert device.store.running() is not None  # the one before
