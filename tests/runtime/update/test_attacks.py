"""What an attacker does to a channel, without the keys or with some: no device takes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import handmade
import pytest
from fleet import NAME, as_file, light_change, make_bundle, new_device, publish, take_update

from edgepack.channel import keys, releases, repository
from edgepack.channel.site import Site
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import EdgepackError, LinkError, TrustError
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.source import Archive, Folder, Http, Link, Source

if TYPE_CHECKING:
    from server import Server


def _flip_blob(place: Path) -> None:
    digest = releases.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    path = place / "channel/blobs" / digest
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def _flip_weights(place: Path) -> None:
    for path in (place / "channel/blobs").iterdir():
        if path.stat().st_size < 200:
            path.write_bytes(bytes(len(path.read_bytes())))


def _edit_targets(place: Path) -> None:
    path = max((place / "channel/metadata").glob("*.targets.json"))
    value = json.loads(path.read_text())
    value["signed"]["targets"][NAME]["custom"]["release"] = 9
    path.write_text(json.dumps(value))


def _edit_timestamp(place: Path) -> None:
    path = place / "channel/metadata/timestamp.json"
    value = json.loads(path.read_text())
    value["signed"]["version"] += 5
    path.write_text(json.dumps(value))


def _own_keys(place: Path) -> None:
    keys.init(place / "evil-keys")
    shutil.rmtree(place / "channel")
    releases.publish(
        make_bundle(place, 3), place / "channel", place / "evil-keys", releases.Rollout()
    )


def _one_root_key(place: Path) -> None:
    """A new root that one stolen root key signs, naming the attacker's keys."""
    evil = place / "evil-keys"
    keys.init(evil)
    shutil.copy(place / "keys/root-1.pem", evil / "root-1.pem")
    shutil.copy(place / "keys/root.json", evil / "root.json")
    opened = repository.Repository(Site(place / "channel"), evil)
    for name in ("targets", "snapshot", "timestamp"):
        opened.root.signed.add_key(keys.signer(evil, name).public_key, name)
    opened.root.sign()
    opened.save({"targets"})


def _drop_metadata(place: Path) -> None:
    for path in (place / "channel/metadata").glob("*.snapshot.json"):
        path.unlink()


def _mix(place: Path) -> None:
    """The targets of one moment with the snapshot of another."""
    folder = place / "channel/metadata"
    newest = max(folder.glob("*.targets.json"))
    oldest = min(folder.glob("*.targets.json"))
    shutil.copy(oldest, newest)


def _endless(place: Path) -> None:
    path = place / "channel/metadata/timestamp.json"
    path.write_bytes(path.read_bytes() + b" " * 20_000_000)


def _yesterday(place: Path) -> None:
    """Signed metadata that the device has gone beyond."""
    shutil.rmtree(place / "channel/metadata")
    shutil.copytree(place / "yesterday", place / "channel/metadata")


def _freeze(place: Path) -> None:
    """A timestamp that ran out and is not renewed."""
    opened = repository.Repository(Site(place / "channel"), place / "keys")
    opened.days["timestamp"] = -1
    opened.save(set())


def _swap_software(place: Path) -> None:
    """Another release of the same owner, whole and signed for, in the place of this one."""
    other = Bundle.open(handmade.bundle(place / "other.epk", change={"target": "board"}))
    theirs = publish(place, other)
    found = releases.releases(place / "channel")
    ours, wrong = (found[name]["digest"].removeprefix("sha256:") for name in (NAME, theirs))
    shutil.copy(place / "channel/blobs" / wrong, place / "channel/blobs" / ours)


def _depend(place: Path) -> None:
    """A release that asks for one more file than was signed."""
    digest = releases.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    path = place / "channel/blobs" / digest
    value = json.loads(path.read_text())
    value["layers"].append(value["layers"][0])
    path.write_text(json.dumps(value))


ATTACKS: dict[str, Callable[[Path], object]] = {
    "manifest altered": _flip_blob,
    "files altered": _flip_weights,
    "targets altered": _edit_targets,
    "timestamp altered": _edit_timestamp,
    "arbitrary software": _own_keys,
    "keys below threshold": _one_root_key,
    "metadata withheld": _drop_metadata,
    "mix and match": _mix,
    "endless data": _endless,
    "rollback": _yesterday,
    "indefinite freeze": _freeze,
    "wrong software": _swap_software,
    "extraneous dependencies": _depend,
}


@pytest.mark.parametrize("release", [make_bundle, light_change], ids=["full", "delta"])
@pytest.mark.parametrize("over", ["folder", "http", "epk"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_not_taken(
    place: Path, server: Server, attack: str, over: str, release: Callable[[Path, int], Bundle]
) -> None:
    """Whatever stands in the channel, the device goes on with what it trusted before."""
    device = new_device(place, Http(server.url, Link()) if over == "http" else None)
    first = take_update(device)
    shutil.copytree(place / "channel/metadata", place / "yesterday")
    publish(place, release(place, 2))
    device.check()
    ATTACKS[attack](place)
    if over == "epk":
        device = new_device(place, Archive(as_file(place / "channel", place / "evil.epk")))
    with pytest.raises((TrustError, LinkError)):
        device.install(device.check())
    assert device.store.state.active == first
    started = device.store.start()
    assert started.bundle is not None
    assert started.bundle.digest == first


@pytest.mark.parametrize("over", ["folder", "http", "epk"])
@pytest.mark.parametrize("record", ["S0", "S1"])
@pytest.mark.parametrize("left", [0, 100])
def test_a_truncated_memory_does_not_take_older_metadata(
    place: Path, server: Server, over: str, record: str, left: int
) -> None:
    """Either record of the store is cut, and yesterday's channel is shown again."""
    device = new_device(place)
    first = take_update(device)
    shutil.copytree(place / "channel/metadata", place / "yesterday")
    publish(place, make_bundle(place, 2))
    second = take_update(device)
    with (place / "device" / record).open("r+b") as stream:
        stream.truncate(left)
    _yesterday(place)
    sources: dict[str, Source] = {
        "folder": Folder(place / "channel"),
        "http": Http(server.url, Link()),
        "epk": Archive(as_file(place / "channel", place / "old.epk")),
    }
    device = new_device(place, sources[over])
    with pytest.raises(TrustError, match="was seen before"):
        device.check()
    running = device.store.running()
    assert running is not None
    assert running.digest in (first, second)  # which was confirmed may be what was cut
    assert device.store.state.trial in ("", second)


def test_a_signed_hash_is_no_path(place: Path) -> None:
    """Even the owner of the targets key cannot write outside of the store."""
    (place / "device").mkdir()
    (place / "device/victim").write_text("precious")
    opened = repository.Repository(Site(place / "channel"), place / "keys")
    opened.targets.signed.targets[NAME].hashes["sha256"] = "../victim"
    opened.save({"targets"})
    with pytest.raises(TrustError, match="not a sha256"):
        new_device(place).check()
    with pytest.raises(TrustError, match="not a sha256"):
        Store.at(place / "device").blobs.receive("../victim", 4, (), lambda _: iter([b"evil"]))
    assert (place / "device/victim").read_text() == "precious"


def test_every_error_is_of_the_family(place: Path) -> None:
    """Whatever a channel's file is replaced with, the device answers with an error of ours."""
    take_update(new_device(place))
    publish(place, light_change(place, 2))
    for path in sorted((place / "channel").glob("*/*")):
        whole = path.read_bytes()
        junks = [b"", b"{}", b"\xff\xfe", b"[" * 100_000, whole[: len(whole) // 2], b"null"]
        for junk in junks if path.parent.name == "metadata" else junks[-2:]:
            path.write_bytes(junk)
            device = new_device(place)
            with suppress(EdgepackError):
                device.install(device.check())
                device.store.abandon()
            path.write_bytes(whole)
    assert take_update(new_device(place))
