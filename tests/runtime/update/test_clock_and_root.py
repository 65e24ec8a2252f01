"""A firmware that ships a newer root, and clocks that are wrong."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import make_bundle, new_device, publish, take_update

from edgepack.channel import carry, keys, releases
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import NothingToDoError, TrustError
from edgepack_runtime.store.record import TIME
from edgepack_runtime.update.source import Folder

CLOCK = "edgepack_runtime.update.trust.time.time"


@pytest.mark.parametrize("version", [2, 4])
def test_a_firmware_may_ship_a_newer_root(place: Path, version: int) -> None:
    """The store remembers root 1; the new image brings a later one, and updates go on from it."""
    device = new_device(place)
    take_update(device)
    shutil.copytree(place / "keys", place / "stolen")
    shutil.copytree(place / "channel", place / "forked")
    for name in keys.ROOTS:
        releases.rotate(name, place / "channel", place / "keys")
    publish(place, make_bundle(place, 2))
    shipped = (place / f"channel/metadata/{version}.root.json").read_bytes()
    assert take_update(replace(device, root=shipped))
    assert device.store.state.floors["root"] == 4
    with pytest.raises(NothingToDoError):
        device.check()  # the image before, with the root that it shipped
    for name in ("targets", "snapshot", "timestamp", "timestamp"):
        releases.rotate(name, place / "forked", place / "stolen")
    with pytest.raises(TrustError, match="forked"):
        replace(device, sources=[Folder(place / "forked")]).check()


@pytest.mark.parametrize("rotated", [0, 2])
def test_a_channel_that_was_begun_again_needs_a_word(
    place: Path, capsys: pytest.CaptureFixture[str], rotated: int
) -> None:
    """New keys and a new first root are refused, each time with the remedy, until it is said."""
    publish(place, make_bundle(place, 5))
    for _ in range(rotated):
        releases.rotate("timestamp", place / "channel", place / "keys")
    old = new_device(place)
    running = take_update(old)
    anew = place / "anew"
    keys.init(anew / "keys")
    publish(anew, make_bundle(place, 2))
    device = new_device(place, Folder(anew / "channel"), channel_of=anew)
    for refused in (replace(old, sources=device.sources), device):
        with pytest.raises(TrustError, match=r"1\.root\.json.* retry --new-root"):
            refused.check()
        assert refused.store.state.active == running
    device.store.forgive()  # what failed, and the time: not the root
    with pytest.raises(TrustError, match="--new-root"):
        device.check()
    assert runtime(["retry", "--new-root", "--store", str(place / "device")]) == 0
    assert "forgiven" in capsys.readouterr().out
    assert device.store.state.root == ""
    assert take_update(device) != running
    with pytest.raises(TrustError, match="--new-root"):
        old.check()
    with pytest.raises(NothingToDoError):
        device.check()


@pytest.mark.parametrize("now", [253402300800.0, 1e15, -1e9])
def test_a_clock_beyond_the_calendar_is_one_clear_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """After the year 9999 all has expired; a clock before 1970 is taken for 1970."""
    monkeypatch.setattr(CLOCK, lambda: now)
    device = new_device(place)
    if now < 0:
        assert take_update(device)
    else:
        with pytest.raises(TrustError, match="expired"):
            device.check()


def test_a_clock_ahead_within_a_long_stick_needs_a_word(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a stick that was taken is believed, to the day, until `retry` forgets it."""
    carry.export(place / "channel", place / "stick", place / "keys", 90)
    device = new_device(place)
    with monkeypatch.context() as patch:
        now = int(time.time()) // 86400 * 86400 + 60 * 86400
        patch.setattr(CLOCK, lambda: now + 5.0)
        take_update(new_device(place, Folder(place / "stick")))
    assert device.store.state.floors[TIME] == now
    with pytest.raises(TrustError, match="expired"):
        device.check()
    device.store.forgive()
    with pytest.raises(NothingToDoError, match="installed already"):
        device.check()


def test_time_that_was_seen_is_not_forgotten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that falls back to 1970 does not make a channel fresh that ran out long ago."""
    device = new_device(place)
    take_update(device)
    now = time.time()
    monkeypatch.setattr("edgepack_runtime.update.trust.time.time", lambda: now + 5 * 86400)
    publish(place, make_bundle(place, 2))
    take_update(device)
    stale = place / "stale"
    shutil.copytree(place / "channel", stale)
    monkeypatch.setattr("edgepack_runtime.update.trust.time.time", lambda: 0.0)
    floors = dict(device.store.state.floors)
    device.store.raise_floors({"time": int(now) + 8 * 86400})
    publish(place, make_bundle(place, 3))
    with pytest.raises(TrustError, match="expired"):
        device.check()
    assert device.store.state.floors["time"] > floors["time"] > now


def test_a_clock_far_ahead_does_not_lock_the_device_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 2099 all is expired; back in the present, updates go on."""
    device = new_device(place)
    take_update(device)
    publish(place, make_bundle(place, 2))
    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.update.trust.time.time", lambda: 4.07e9)
        with pytest.raises(TrustError, match="expired"):
            device.check()
    assert take_update(device)
