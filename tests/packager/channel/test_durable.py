"""What an owner's command wrote is on the disk, in the order that devices and keys rely on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet import make_bundle, publish

from edgepack.channel import carry, keys, releases


class _Disk:
    """What `os` has done below a folder: the bytes that are on the disk, the names that may not be.

    faults: names that were given to bytes, or before other names, that a power cut may take.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.named: set[Path] = set()
        self.faults: list[str] = []
        self.unsure: set[Path] = set()
        self._bytes: dict[int, bytes] = {}  # by inode
        for name in ("fsync", "mkdir", "replace"):
            patch.setattr(os, name, self._seen(getattr(os, name), getattr(self, f"_{name}")))

    def _seen(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            done = real(*args, **more)
            note(*args, **more)
            return done

        return call

    def _fsync(self, handle: int) -> None:
        path = _path_of(handle)
        if path.is_dir():
            self.unsure = {name for name in self.unsure if name.parent != path}
        else:
            self._bytes[path.stat().st_ino] = path.read_bytes()

    def _mkdir(self, path: str | Path, *_: Any) -> None:
        self._named(Path(path))

    def _replace(self, _: Any, new: str | Path, **more: int) -> None:
        path = Path(new)
        if "dst_dir_fd" in more:
            path = _path_of(more["dst_dir_fd"]) / path
        if self._bytes.get(path.stat().st_ino) != path.read_bytes():
            self.faults.append(f"the bytes of {path.name}")
        self.faults += [f"{name.name} before {path.name}" for name in self.unsure]
        self._named(path)
        self.named.add(path)

    def _named(self, path: Path) -> None:
        if path.is_relative_to(self._folder):
            self.unsure.add(path)


def _path_of(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


def test_keys_are_on_the_disk_when_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key's bytes are synced before it has its name, and each name when the command ends."""
    disk = _Disk(tmp_path, monkeypatch)
    made = keys.init(tmp_path / "own/keys")
    assert disk.faults == []
    assert disk.unsure == set()
    assert set(made) == disk.named


@pytest.mark.parametrize("what", ["publish", "refresh", "targets", "root-1", "retire", "export"])
def test_what_a_command_writes_is_on_the_disk_in_its_order(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Every file's bytes, and all names before it, are synced before it has its own."""
    own, there, second = place / "keys", place / "channel", make_bundle(place, 2)
    before = _files(place)
    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: publish(place, second),
        "refresh": lambda: releases.refresh(there, own),
        "retire": lambda: releases.retire("small/any", there, own),
        "export": lambda: carry.export(there, place / "usb", own, 90),
    }
    disk = _Disk(place, monkeypatch)
    acts.get(what, lambda: releases.rotate(what, there, own))()
    assert disk.faults == []
    assert disk.unsure == set()
    after = _files(place)
    changed = {path for path, content in after.items() if before.get(path) != content}
    assert changed
    assert changed <= disk.named


def test_a_new_channel_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of a first publish are named for good before the timestamp that needs them."""
    bundle = make_bundle(tmp_path, 1)
    disk = _Disk(tmp_path, monkeypatch)
    keys.init(tmp_path / "keys")
    publish(tmp_path, bundle)
    assert disk.faults == []
    assert disk.unsure == set()
    assert set(_files(tmp_path)) <= disk.named


def _files(place: Path) -> dict[Path, bytes]:
    """Return the files of a channel and of its keys."""
    found = [p for p in place.rglob("*") if p.is_file() and p.name != ".lock"]
    return {path: path.read_bytes() for path in found if path.suffix != ".epk"}
