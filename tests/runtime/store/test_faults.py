"""The store when the disk refuses, and when its process is killed for real."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from crash import CrashDisk
from explorer import Promises, bundles, recover
from life import live, make_road, settle, tend, travel

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.store.storage import Disk
from edgepack_runtime.store.store import Store
from edgepack_runtime.store.writer import LOCK

Releases = Sequence[Bundle]
Life = Callable[[Store, Promises], None]
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT, "EROFS": errno.EROFS}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Four small releases that share blobs."""
    return bundles(tmp_path_factory.mktemp("releases"), 4)


@pytest.fixture(scope="module", params=["store", "tended", "road"])
def life(
    request: pytest.FixtureRequest, releases: Releases, tmp_path_factory: pytest.TempPathFactory
) -> Life:
    """What a store goes through by itself, by hands, and by updates from a stick and a channel."""
    if request.param == "store":
        return partial(live, releases)
    if request.param == "tended":
        return partial(_tended, releases)
    return partial(travel, make_road(tmp_path_factory.mktemp("road")))


def _tended(releases: Releases, store: Store, promises: Promises) -> None:
    settle(releases, store, promises)
    tend(releases, store, promises)


class _Failing(CrashDisk):
    """Fails one operation: refuses it, or writes half of it and then refuses."""

    fail_at = 0
    code = 0
    short = False
    count = 0

    def _do(self, name: str) -> None:
        self.count += 1
        if self.count == self.fail_at:
            raise OSError(self.code, os.strerror(self.code), name)

    def append(self, path: str, content: bytes) -> None:
        if self.short and self.count + 1 == self.fail_at:
            self._file(path).current += content[: len(content) // 2]
        super().append(path, content)

    def overwrite(self, path: str, content: bytes) -> None:
        if self.short and self.count + 1 == self.fail_at:
            file = self._file(path)
            file.current = content[: len(content) // 2] + file.current[len(content) // 2 :]
        super().overwrite(path, content)


def _operations(life: Life) -> int:
    disk = _Failing()
    life(Store(disk), Promises())
    return disk.count


@pytest.mark.parametrize("short", [False, True], ids=["refused", "half-written"])
@pytest.mark.parametrize("name", ERRORS)
def test_an_error_at_any_operation_leaves_what_ran(
    life: Life, releases: Releases, name: str, *, short: bool
) -> None:
    """One clear error, the promises hold, and the next update works on the mended disk."""
    failures = 0
    for number in range(1, _operations(life) + 1):
        disk, promises = _Failing(), Promises()
        disk.fail_at, disk.code, disk.short = number, ERRORS[name], short
        try:
            life(Store(disk), promises)
        except (OSError, EdgepackError):
            failures += 1
        except AssertionError:  # a start that could not be counted runs what ran before
            failures += 1
        promises.allowed |= {promises.base}
        promises.attempts = 99
        recover(Store(disk), promises, releases[3])
    assert failures > 40


class _Killed(Disk):
    """Kills its own process before one operation."""

    kill_at = 0
    count = 0

    def _step(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def create(self, path: str) -> None:
        self._step()
        super().create(path)

    def append(self, path: str, content: bytes) -> None:
        self._step()
        super().append(path, content)

    def truncate(self, path: str, size: int) -> None:
        self._step()
        super().truncate(path, size)

    def overwrite(self, path: str, content: bytes) -> None:
        self._step()
        super().overwrite(path, content)

    def sync(self, path: str) -> None:
        self._step()
        super().sync(path)

    def sync_folder(self, path: str) -> None:
        self._step()
        super().sync_folder(path)

    def rename(self, old: str, new: str) -> None:
        self._step()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._step()
        super().remove(path)


class _Told(Promises):
    """Promises that a process tells its parent as it makes them."""

    to = -1

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if self.to >= 0:
            said = {key: item for key, item in vars(self).items() if key != "to"}
            os.write(self.to, json.dumps(said, default=sorted).encode() + b"\n")


def _heard(pipe: int) -> Promises:
    """Return the last promises that came through a pipe."""
    with os.fdopen(pipe, "rb") as stream:
        lines = stream.read().splitlines()
    said = json.loads(lines[-1]) if lines else {"allowed": [""]}
    sets = {key: set(item) for key, item in said.items() if isinstance(item, list)}
    return Promises(**{**said, **sets})


def test_kill_9_at_every_operation(life: Life, releases: Releases, tmp_path: Path) -> None:
    """A real process on a real disk, killed before each operation: what it promised holds."""
    killed = 0
    for number in range(1, 1000):
        root = tmp_path / str(number)
        root.mkdir()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            disk, promises = _Killed(root), _Told()
            disk.kill_at, promises.to = number, writing
            life(Store(disk), promises)
            os._exit(0)
        os.close(writing)
        heard = _heard(reading)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
        recover(Store.at(root), heard, releases[3])
    assert killed > 60


def test_the_real_disk_does_what_the_model_says(releases: Releases, tmp_path: Path) -> None:
    """The same life gives the same files, names and bytes, on both."""
    model = CrashDisk()
    for store in (Store(model), Store.at(tmp_path)):
        _tended(releases, store, Promises())
        live(releases, store, Promises())
    found = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != LOCK
    }
    files = {path: file.current for path, file in model._names.items() if not file.folder}
    assert found == files


def test_the_folders_of_a_store_are_durable(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder that a first install makes is synced where its name stands."""
    synced: set[Path] = set()
    monkeypatch.setattr(
        "edgepack_runtime.store.storage.os.fsync",
        lambda handle: synced.add(Path(f"/proc/self/fd/{handle}").readlink()),
    )
    root = tmp_path / "var/lib/store"
    store = Store.at(root)
    with store.alone():
        store.install(releases[0])
    assert {tmp_path, tmp_path / "var", tmp_path / "var/lib", root, root / "blobs"} <= synced
