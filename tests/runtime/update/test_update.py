"""A device follows a channel: it takes, proves, keeps or goes back, and repairs itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import handmade
import pytest
from fleet import BIG, NAME, light_change, make_bundle, new_device, publish, take_update

import edgepack_runtime as er
from edgepack.channel import releases
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.device.facts import probe
from edgepack_runtime.errors import (
    DeviceError,
    NothingToDoError,
)
from edgepack_runtime.model.prepare import compiled_folder
from edgepack_runtime.store.find import open_bundle
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.source import Http, Link

if TYPE_CHECKING:
    from server import Server


def test_a_device_follows_a_channel(place: Path) -> None:
    """First release, the next one, nothing to do, and back: each is what runs."""
    device = new_device(place)
    first = take_update(device)
    assert device.store.state.active == first
    with pytest.raises(NothingToDoError, match="installed already"):
        device.check()
    publish(place, make_bundle(place, 2))
    second = take_update(device)
    assert device.store.state.active == second
    assert device.store.state.previous == first
    device.store.rollback()
    assert device.store.start().bundle.digest == first  # type: ignore[union-attr]
    with pytest.raises(NothingToDoError, match="failed on this device"):
        device.check()


def test_only_what_changed_is_downloaded(place: Path, server: Server) -> None:
    """Blobs that the device has are not fetched again."""
    device = new_device(place, Http(server.url, Link()))
    take_update(device)
    whole = server.sent
    assert whole > len(BIG)
    publish(place, make_bundle(place, 2))
    take_update(device)
    assert server.sent - whole < 10_000


def test_a_release_that_fails_its_self_test_is_taken_back(place: Path) -> None:
    """Golden outputs that do not come out: what ran goes on, and it is not tried again."""
    device = new_device(place)
    first = take_update(device)
    bad = handmade.bundle(
        place / "bad.epk",
        change={"release": 2, "version": "1.2"},
        extra={
            "golden.json": json.dumps(
                {"inputs": ["turn on"], "outputs": [{"shape": [3], "data": [0.0, 0.5, 0.5]}]}
            ).encode()
        },
    )
    publish(place, Bundle.open(bad))
    device.install(device.check())
    assert "strays from its golden outputs" in device.try_out()
    assert device.store.state.active == first
    with pytest.raises(NothingToDoError, match="failed on this device before"):
        device.check()


def test_what_does_not_fit_is_not_downloaded(place: Path, server: Server) -> None:
    """The list of what is lacking comes before the weights do."""
    publish(place, make_bundle(place, 2, arch="riscv64"))
    device = new_device(place, Http(server.url, Link()))
    with pytest.raises(DeviceError, match="riscv64"):
        device.install(device.check())
    assert server.sent < 20_000


def test_a_pinned_device_takes_nothing(place: Path) -> None:
    """Held back until it is let go."""
    device = new_device(place)
    device.store.pin(pinned=True)
    with pytest.raises(NothingToDoError, match="pinned"):
        device.check()
    device.store.pin(pinned=False)
    assert take_update(device)


def test_the_command_updates_tells_and_goes_back(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """update, status, rollback, pin, collect: what they print, and their exit codes."""
    store = ["--store", str(place / "device"), "--json"]
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    update = [
        "update",
        *store,
        "--channel",
        str(place / "channel"),
        "--name",
        NAME,
        "--root",
        str(root),
    ]

    def call(*args: str, code: int = 0) -> dict[str, Any]:
        assert runtime([*args]) == code
        printed = capsys.readouterr().out
        return json.loads(printed) if printed else {}

    fresh = f"the factory's release; no store at {place / 'device'} yet"
    assert call("status", *store)["running"] == fresh
    assert call(*update, "--check")["available"] == f"{NAME} 1.1"
    assert call(*update)["running"] == f"{NAME} 1.1"
    call(*update, code=7)
    assert call("status", *store)["running"] == "small 1.1 for any"
    assert er.load(place / "device")("turn on")
    assert call("selftest", str(place / "device"), "--json")["agreement"] == 1.0
    assert runtime(["run", str(place / "device"), "turn on"]) == 0
    assert "gamma" in capsys.readouterr().out
    call("pin", *store)
    call(*update, code=7)
    call("pin", *store, "--off")
    publish(place, make_bundle(place, 2))
    with Store.at(place / "device").alone():
        call(*update, code=7)
    assert call(*update)["version"] == "1.2"
    assert call("rollback", *store)["active"].startswith("sha256:")
    told = call("status", *store)
    assert told["running"] == "small 1.1 for any"
    assert told["versions"] == {told["active"]: "1.1"}
    assert call("collect", *store)["bytes_freed"] > 0
    call(
        "update",
        *store,
        "--channel",
        str(place / "nowhere"),
        "--name",
        NAME,
        "--root",
        str(root),
        code=2,
    )
    call(*update[:-1], str(place / "no-root"), code=5)


def test_what_was_compiled_goes_with_its_release(place: Path) -> None:
    """The forms of the release before stay, those of older ones go, unless they are the same."""
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    update = [
        "update",
        "--store",
        str(place / "device"),
        "--channel",
        str(place / "channel"),
        "--name",
        NAME,
        "--root",
        str(root),
    ]
    folders = []
    for release in (1, 2, 3, 4):
        if release > 1:
            graph = b'{"rank": 2, "size": 3}' + b" " * min(release, 3)
            change = {"release": release, "version": f"1.{release}"}
            made = handmade.bundle(
                place / f"c{release}.epk", change=change, extra={"null/null.json": graph}
            )
            publish(place, Bundle.open(made))
        assert runtime(update) == 0
        running = open_bundle(place / "device")
        folder = compiled_folder(running, running.manifest.variants[0], probe()).parent
        folder.mkdir(parents=True, exist_ok=True)
        folders.append(folder)
    assert folders[2] == folders[3]
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    for release, stays in ((5, True), (6, False)):
        publish(place, make_bundle(place, release))
        assert runtime(update) == 0
        assert folders[3].exists() == stays


def test_a_download_tells_how_far_it_came(place: Path, server: Server) -> None:
    """Chunk by chunk, and on after a break; never beyond what it said it would be."""
    told: list[tuple[int, int]] = []

    def event(word: str, facts: Mapping[str, Any]) -> None:
        if word == "download":
            told.append((facts["done"], facts["total"]))

    device = replace(new_device(place, Http(server.url, Link())), event=event)
    take_update(device)
    assert {1, 2, 3} <= {done // CHUNK for done, _ in told}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {told[-1][0]}
    assert told[-1][0] > len(BIG)


def test_a_light_change_comes_as_a_delta(place: Path, server: Server) -> None:
    """A hundredth of the bytes, and the very blob that was signed."""
    device = new_device(place, Http(server.url, Link()))
    take_update(device)
    before = server.sent
    publish(place, light_change(place, 2))
    take_update(device)
    assert server.sent - before < len(BIG) / 50
    running = device.store.running()
    assert running is not None
    assert bytes(running.read("weights.bin"))[0] == (BIG[0] + 1) % 256


@pytest.mark.parametrize("what", ["no base", "damaged base", "damaged delta", "missing delta"])
def test_without_its_delta_the_whole_blob_is_taken(place: Path, server: Server, what: str) -> None:
    """The full blob is always there."""
    device = new_device(place, Http(server.url, Link()))
    if what != "no base":
        take_update(device)
    publish(place, light_change(place, 2))
    delta = releases.releases(place / "channel")[NAME]["deltas"][0]
    path = place / "channel/blobs" / delta["sha256"]
    base = place / "device/blobs" / delta["base"]
    if what == "damaged base":
        base.write_bytes(base.read_bytes()[:-1] + b"x")
    if what == "damaged delta":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if what == "missing delta":
        path.unlink()
    before = server.sent
    assert take_update(device)
    assert server.sent - before > len(BIG)


def test_every_damaged_blob_is_repaired(place: Path, server: Server) -> None:
    """A bit flips in the OCI manifest, the model config or any file: it comes again, and runs."""
    device = new_device(place, Http(server.url, Link()))
    first = take_update(device)
    blobs = sorted((place / "device/blobs").iterdir())
    assert len(blobs) > 5
    for damaged in blobs:
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(bytes(content))
        assert device.store.running() is None
        before = server.sent
        assert device.install(device.check()).digest == first
        assert server.sent - before < len(content) + 20_000
        assert device.store.state.trial == ""
        assert device.store.running() is not None


def test_one_unreadable_record_is_not_the_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector under one of the two records leaves the other."""
    device = new_device(place)
    first = take_update(device)
    store, state = device.store, device.store.state
    newest = "S0" if state.seq % 2 else "S1"
    other = "S1" if newest == "S0" else "S0"
    read = store.storage.read

    def bad(path: str, size: int = -1, start: int = 0) -> bytes:
        if path == other:
            raise OSError(5, "Input/output error", path)
        return read(path, size, start)

    monkeypatch.setattr(store.storage, "read", bad)
    assert store.state.active == first
    assert store.start().bundle is not None


def test_nothing_is_collected_that_cannot_be_judged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that cannot be opened for a moment keeps its blobs."""
    device = new_device(place)
    first = take_update(device)

    def no_handles(_: str) -> memoryview:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(device.store.storage, "map", no_handles)
        device.store.collect()
    running = device.store.running()
    assert running is not None
    assert running.digest == first


def test_a_device_that_is_short_of_memory_condemns_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies with the device is no verdict on the release: it comes again."""
    device = new_device(place)

    def full(*_: object, **__: object) -> object:
        raise DeviceError("needs 900 MB of memory, 20 MB are free")

    device.install(device.check())
    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.model.load.load", full)
        with pytest.raises(DeviceError):
            device.try_out()
    assert device.store.state.bad == ()
    assert take_update(device)
