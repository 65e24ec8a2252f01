"""A release that the disk damaged is not a bad release, and nothing to go back to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fleet import NAME, make_bundle, new_device, publish, take_update

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import DeviceError, SelfTestError, TrustError
from edgepack_runtime.store.store import ATTEMPTS, Store
from edgepack_runtime.update.takeover import Hooks
from edgepack_runtime.update.updater import Updater


def damage(place: Path, digest: str) -> None:
    """Flip a bit in the file of a release that no other release has."""
    running = Store.at(place / "device").blobs.bundle(digest)
    blob = place / "device/blobs" / running.manifest.file("own.bin").sha256
    content = bytearray(blob.read_bytes())
    content[0] ^= 1
    blob.write_bytes(bytes(content))


@pytest.fixture
def two(place: Path) -> tuple[str, str]:
    """A device that took two releases: their digests."""
    first = take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    return first, take_update(new_device(place))


def with_hook(device: Updater) -> Updater:
    """Return a device whose hook after the switch fails."""

    def down(_: Bundle) -> None:
        raise SelfTestError("no answer on port 80")

    return Updater(
        device.store, device.sources, device.root, NAME, device.policy, hooks=Hooks(after=down)
    )


def test_damage_on_trial_is_no_verdict(place: Path) -> None:
    """The trial is given up without an attempt, and the same command repairs and takes it."""
    first = take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    device = new_device(place)
    second = device.install(device.check()).digest
    damage(place, second)
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    code = runtime(
        [
            "update",
            "--store",
            str(place / "device"),
            "--channel",
            str(place / "channel"),
            "--root",
            str(root),
            "--name",
            NAME,
        ]
    )
    state = device.store.state
    assert code == 0
    assert (state.active, state.previous, state.bad) == (second, first, ())


def test_damage_while_it_is_proven_is_no_verdict(place: Path) -> None:
    """What a proof says of files that are not the signed ones does not count."""
    take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    device = new_device(place)

    def prove(bundle: Bundle) -> None:
        damage(place, bundle.digest)
        raise TrustError("own.bin does not match its digest")

    updater = Updater(device.store, device.sources, device.root, NAME, device.policy, prove=prove)
    updater.install(updater.check())
    assert "does not match" in updater.try_out()
    assert device.store.state.bad == ()
    assert take_update(device) == device.store.state.active


@pytest.mark.parametrize("trial", [False, True], ids=["settled", "in the hook"])
def test_a_rollback_does_not_go_to_a_damaged_release(
    place: Path, two: tuple[str, str], *, trial: bool
) -> None:
    """What runs stays, and the command says why with an exit code of its own."""
    first, second = two
    store = Store.at(place / "device")
    if trial:
        store.storage.remove("S0")
        store.storage.remove("S1")
        for digest in two:
            store.install(Bundle.open(place / f"r{1 + two.index(digest)}.epk"))
            store.start()
            store.confirm(settled=digest == first)
    damage(place, first)
    assert runtime(["rollback", "--store", str(place / "device")]) == TrustError.exit_code
    assert store.state.active == second
    assert store.state.bad == ()
    assert store.running() is not None


def test_a_failing_hook_does_not_go_back_to_a_damaged_release(place: Path) -> None:
    """The new release stays, for nothing else is whole; it is said, and it is no verdict."""
    first = take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    damage(place, first)
    device = with_hook(new_device(place))
    second = device.install(device.check()).digest
    with pytest.raises(DeviceError, match=r"no answer on port 80; the release before is damaged"):
        device.try_out()
    state = device.store.state
    assert (state.active, state.trial, state.bad) == (second, "", ())


@pytest.mark.parametrize("before", ["whole", "damaged"])
def test_attempts_that_are_used_up_in_the_hook(place: Path, before: str) -> None:
    """A device that died in its hook each time goes back, if there is something to go back to."""
    first = take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    device = new_device(place)
    second = device.install(device.check()).digest
    device.store.start()
    device.store.confirm(settled=False)
    for _ in range(ATTEMPTS):
        assert device.store.start().on_trial
    if before == "damaged":
        damage(place, first)
    started = device.store.start()
    assert started.bundle is not None
    assert started.bundle.digest == (first if before == "whole" else second)
    assert device.store.state.bad == ((second,) if before == "whole" else ())


def test_a_damaged_release_in_its_hook_goes_back(place: Path) -> None:
    """It is active, on trial and damaged: the one before runs, and this one comes again."""
    first = take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    device = new_device(place)
    second = device.install(device.check()).digest
    device.store.start()
    device.store.confirm(settled=False)
    damage(place, second)
    started = device.store.start()
    assert started.bundle is not None
    assert (started.bundle.digest, device.store.state.bad) == (first, ())
    assert take_update(device) == second
