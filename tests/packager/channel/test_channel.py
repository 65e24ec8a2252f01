"""The owner's side: publish, roll out, rotate, export, and go on after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fleet import NAME, light_change, make_bundle, new_device, publish, take_update

from edgepack.channel import carry, durable, keys, releases, repository, site
from edgepack.cli import main as host
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import (
    InputError,
    NothingToDoError,
    TrustError,
)
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Folder


def test_an_older_release_is_neither_published_nor_taken(place: Path) -> None:
    """Release counters only grow."""
    publish(place, make_bundle(place, 5))
    with pytest.raises(InputError, match="the channel has release 5, this is 4"):
        publish(place, make_bundle(place, 4))
    with pytest.raises(NothingToDoError):
        publish(place, Bundle.open(place / "r5.epk"))


def test_a_rollout_reaches_its_share_of_devices(place: Path) -> None:
    """A quarter of a thousand devices, the same ones each time; cohorts come first."""
    publish(place, make_bundle(place, 2), percent=25)
    chosen = []
    for number in range(1000):
        one = new_device(place, policy=Policy(device=f"d{number}", attempts=1))
        chosen.append(one.policy.takes(_offer(place, 25, ())))
    assert 200 < sum(chosen) < 300
    cohort = new_device(place, policy=Policy(device="d0", cohort="beta", attempts=1))
    assert cohort.policy.takes(_offer(place, 100, ("beta",)))
    assert not cohort.policy.takes(_offer(place, 100, ("stable",)))


def test_a_staged_rollout_leaves_the_rest_their_release(place: Path) -> None:
    """Who is not chosen gets, or repairs, the last release for all; in the end all get the new."""
    first = Bundle.open(place / "r1.epk")
    publish(place, make_bundle(place, 2), cohorts=("beta",))
    third = make_bundle(place, 3)
    publish(place, third, percent=0)
    device = new_device(place)
    assert take_update(device) == first.digest
    with pytest.raises(NothingToDoError):
        device.check()
    blob = max((place / "device/blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert device.install(device.check()).digest == first.digest
    carry.export(place / "channel", place / "stick", place / "keys", 9)
    shutil.rmtree(place / "device")
    assert take_update(new_device(place, Folder(place / "stick"))) == first.digest
    publish(place, third)
    assert "before" not in releases.releases(place / "channel")[NAME]
    assert take_update(device) == third.digest


def test_a_device_ahead_of_a_narrowed_rollout_stays(place: Path) -> None:
    """It took the new release and is not chosen any more: no error, and it does not go back."""
    publish(place, make_bundle(place, 2), cohorts=("beta",))
    policy = Policy(cohort="beta", attempts=1)
    take_update(new_device(place, policy=policy))
    with pytest.raises(NothingToDoError, match="not rolled out"):
        new_device(place).check()


def test_a_minimum_is_not_undercut_by_the_release_for_the_rest(place: Path) -> None:
    """A release below the least one that the owner names is offered to nobody."""
    rollout = releases.Rollout(percent=0, minimum=2)
    releases.publish(make_bundle(place, 2), place / "channel", place / "keys", rollout)
    with pytest.raises(NothingToDoError, match="not rolled out"):
        new_device(place).check()


def _offer(place: Path, percent: int, cohorts: tuple[str, ...]) -> Any:
    from edgepack_runtime.update.trust import Offer

    digest = releases.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    return Offer(digest, 1, 2, "1.2", percent, cohorts)


def test_a_key_that_is_missed_is_missed_before_the_root_is_replaced(place: Path) -> None:
    """Rotating timestamp needs snapshot's key too; rotating a root key needs root keys alone."""
    own = place / "keys"
    shutil.copytree(own, place / "offline")
    for name in ("snapshot", "timestamp", "targets"):
        (place / "offline" / f"{name}.pem").unlink()
    (own / "snapshot.pem").rename(place / "snapshot.pem")
    with pytest.raises(InputError, match="no key at"):
        releases.rotate("timestamp", place / "channel", own)
    assert not (place / "channel/metadata/2.root.json").exists()
    releases.rotate("root-1", place / "channel", place / "offline")
    releases.rotate("root-2", place / "channel", place / "offline")
    assert take_update(new_device(place))


@pytest.mark.parametrize("name", keys.NAMES)
def test_a_rotated_key_is_followed(place: Path, name: str) -> None:
    """Any key can be replaced; devices learn it from the next root, and keep their floors."""
    device = new_device(place)
    take_update(device)
    releases.rotate(name, place / "channel", place / "keys")
    publish(place, make_bundle(place, 2))
    take_update(device)
    floors = device.store.state.floors
    assert floors["root"] == 2
    kinds = [key.partition("@")[0] for key in floors if "@" in key]
    assert len(kinds) == len(set(kinds)) == 5  # those of older keys are gone


def test_a_rotation_that_cannot_be_signed_changes_nothing(place: Path) -> None:
    """Without two root keys the old key stays and goes on signing."""
    own = place / "keys"
    (place / "safe").mkdir()
    for name in keys.ROOTS:
        shutil.move(own / f"{name}.pem", place / "safe")
    before = (own / "timestamp.pem").read_bytes()
    with pytest.raises(InputError, match="needs 2 root keys"):
        releases.rotate("timestamp", place / "channel", own)
    assert (own / "timestamp.pem").read_bytes() == before
    releases.refresh(place / "channel", own)
    assert take_update(new_device(place))


@pytest.mark.parametrize("name", keys.ROOTS)
def test_a_lost_root_key_is_replaced(place: Path, name: str) -> None:
    """With two of three root keys the third gets a successor, and then any two sign again."""
    own = place / "keys"
    (own / f"{name}.pem").unlink()
    releases.rotate(name, place / "channel", own)
    assert sorted(keys.present(own, keys.ROOTS)) == sorted(keys.ROOTS)
    other = next(root for root in keys.ROOTS if root != name)
    (own / f"{other}.pem").unlink()
    releases.rotate(other, place / "channel", own)
    root = json.loads((own / "root.json").read_bytes())["signed"]
    assert sorted(root["roles"]["root"]["keyids"]) == sorted(keys.present(own, keys.ROOTS).values())
    publish(place, make_bundle(place, 2))
    assert take_update(new_device(place))


def test_a_lost_root_key_that_cannot_be_told_is_not_guessed(place: Path) -> None:
    """With the file of a stranger among the root keys, two might be the lost one: none goes."""
    own = place / "keys"
    (own / "root-1.pem").unlink()
    keys.make(own, "root-2")
    with pytest.raises(InputError, match="holds 1 of the channel's 3 root keys"):
        releases.rotate("root-1", place / "channel", own)
    assert not (place / "channel/metadata/2.root.json").exists()


def test_the_host_commands_tend_a_channel(tmp_path: Path) -> None:
    """Keys init and list, publish, channel list, retire and refresh, keys rotate."""
    run = CliRunner()

    def call(*args: str, code: int = 0) -> str:
        done = run.invoke(host, [*args])
        assert done.exit_code == code, done.output
        return done.output

    folder, own = str(tmp_path / "channel"), str(tmp_path / "keys")
    signed = ["--channel", folder, "--keys", own]
    bundle = str(make_bundle(tmp_path, 1).path)
    call("publish", bundle, *signed, code=2)
    call("channel", "refresh", folder, "--keys", own, code=2)
    assert call("keys", "init", own).count(".pem") == 6
    call("keys", "init", own, code=7)
    assert "timestamp" in call("keys", "list", own)
    assert "release 1" in call("publish", bundle, *signed, "--percent", "20")
    assert json.loads(call("channel", "list", folder, "--json"))[NAME]["percent"] == 20
    call("keys", "rotate", "timestamp", *signed)
    call("channel", "refresh", folder, "--keys", own)
    call("channel", "export", folder, "--usb", str(tmp_path / "usb"), "--keys", own)
    call("channel", "export", folder, "--usb", "x", "--keys", own, "--expires", "soon", code=2)
    call("channel", "retire", NAME, *signed)
    assert call("channel", "list", folder) == ""
    call("channel", "retire", NAME, *signed, code=2)
    call("keys", "rotate", "nobody", *signed, code=2)


def test_a_stick_carries_a_channel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported for 90 days it is taken when the channel itself has long expired, and only once."""
    own = place / "keys"
    carry.export(place / "channel", place / "stick", own, 90)
    monkeypatch.setitem(repository.DAYS, "timestamp", -1)
    releases.refresh(place / "channel", own)
    with pytest.raises(TrustError, match="expired"):
        new_device(place).check()
    stick = new_device(place, Folder(place / "stick"))
    assert take_update(stick)
    with pytest.raises(NothingToDoError):
        stick.check()
    with pytest.raises(InputError, match="is not empty"):
        carry.export(place / "channel", place / "stick", own, 90)
    with pytest.raises(InputError, match="at least one day"):
        carry.export(place / "channel", place / "other", own, 0)


def test_an_old_stick_is_refused(place: Path) -> None:
    """A stick from before the release that runs: older than what the device has seen."""
    carry.export(place / "channel", place / "stick", place / "keys", 90)
    publish(place, make_bundle(place, 2))
    publish(place, make_bundle(place, 3))
    take_update(new_device(place))
    with pytest.raises(TrustError, match="was seen before"):
        new_device(place, Folder(place / "stick")).check()


def test_the_channel_is_not_older_than_its_stick(place: Path) -> None:
    """A device that took a stick goes on with the channel at once."""
    carry.export(place / "channel", place / "stick", place / "keys", 90)
    take_update(new_device(place, Folder(place / "stick")))
    with pytest.raises(NothingToDoError, match="installed already"):
        new_device(place).check()


def test_no_device_goes_back_below_the_minimum(place: Path) -> None:
    """The owner names the least release: by hand nobody goes below it, a failed hook still does."""
    device = new_device(place)
    first = take_update(device)
    second = make_bundle(place, 2)
    rollout = releases.Rollout(minimum=2)
    releases.publish(second, place / "channel", place / "keys", rollout)
    take_update(device)
    with pytest.raises(NothingToDoError, match="is release 2 and the previous one is release 1"):
        device.store.rollback()
    assert device.store.rollback(forced=True).active == first
    publish(place, make_bundle(place, 3))
    take_update(device)
    with pytest.raises(NothingToDoError, match="the minimum is release 2"):
        device.store.rollback()
    with pytest.raises(InputError, match="up to this one, 3, not 4"):
        releases.publish(
            make_bundle(place, 3), place / "channel", place / "keys", releases.Rollout(minimum=4)
        )


def test_a_wider_rollout_keeps_its_deltas(place: Path) -> None:
    """The same release for more devices: those that come later get the deltas too."""
    publish(place, light_change(place, 2), percent=10)
    deltas = releases.releases(place / "channel")[NAME]["deltas"]
    assert deltas
    publish(place, Bundle.open(place / "light2.epk"), percent=100)
    assert releases.releases(place / "channel")[NAME]["deltas"] == deltas


def test_a_publish_that_was_interrupted_is_finished(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets were written, the rest was not: the same command completes it."""
    write = durable.write

    def stops(path: Path, content: bytes) -> None:
        if path.name.endswith("snapshot.json"):
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(site, "write", stops)
        with pytest.raises(OSError, match="No space"):
            publish(place, make_bundle(place, 2))
    publish(place, Bundle.open(place / "r2.epk"))
    assert new_device(place).check().version == "1.2"
