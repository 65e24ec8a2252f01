"""What was once signed for someone, some board or some time: no device takes it elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import handmade
import pytest
from fleet import NAME, ONCE, as_file, light_change, make_bundle, new_device, publish, take_update

from edgepack.channel import keys, releases, repository
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError, NothingToDoError, TrustError
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.source import Archive, Folder, Http, Link, Source
from edgepack_runtime.update.updater import Updater

if TYPE_CHECKING:
    from server import Server


def test_older_metadata_is_refused(place: Path) -> None:
    """Rollback: signed, unexpired, and older than what this device has seen."""
    shutil.copytree(place / "channel", place / "yesterday")
    publish(place, make_bundle(place, 2))
    device = new_device(place)
    take_update(device)
    with pytest.raises(TrustError, match="was seen before"):
        new_device(place, Folder(place / "yesterday")).check()


def test_expired_metadata_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze: a timestamp that its owner no longer renews."""
    monkeypatch.setitem(repository.DAYS, "timestamp", -1)
    publish(place, make_bundle(place, 2))
    with pytest.raises(TrustError, match="expired"):
        new_device(place).check()


@pytest.mark.parametrize("release", [make_bundle, light_change], ids=["full", "delta"])
@pytest.mark.parametrize("over", ["folder", "http", "epk"])
def test_what_one_device_was_sent_is_not_taken_by_another(
    place: Path,
    server: Server,
    over: str,
    release: Callable[[Path, int], Bundle],
) -> None:
    """Replay: one of the same owner with another board, one of another owner."""
    publish(place, release(place, 2))
    sources: dict[str, Source] = {
        "folder": Folder(place / "channel"),
        "http": Http(server.url, Link()),
        "epk": Archive(as_file(place / "channel", place / "captured.epk")),
    }
    take_update(new_device(place, sources[over]))
    other = place / "other"
    keys.init(other / "keys")
    publish(other, make_bundle(other, 1))
    foreign = new_device(other, sources[over])
    board = Updater(
        Store.at(other / "board"), [sources[over]], new_device(place).root, "small/jetson", ONCE
    )
    with pytest.raises(TrustError):
        foreign.check()
    with pytest.raises(InputError, match="no release 'small/jetson'; it has small/any"):
        board.check()
    assert not foreign.store.state.trial
    assert not board.store.state.trial


def test_a_release_for_another_board_is_refused(place: Path) -> None:
    """The signed name binds the board; a device asks for its own."""
    other = handmade.bundle(place / "other.epk", change={"target": "board", "release": 2})
    publish(place, Bundle.open(other))
    device = new_device(place)
    root = device.root
    wrong = Updater(device.store, device.sources, root, "small/jetson", ONCE)
    with pytest.raises(InputError, match="no release 'small/jetson'"):
        wrong.check()


def test_replaced_root_keys_rule_no_device(place: Path) -> None:
    """Old root keys, stolen after they were replaced, cannot fork the line of roots."""
    shutil.copytree(place / "keys", place / "stolen")
    shutil.copytree(place / "channel", place / "forked")
    for name in keys.ROOTS:
        releases.rotate(name, place / "channel", place / "keys")
    publish(place, make_bundle(place, 2))
    device = new_device(place)
    first = take_update(device)
    for name in ("targets", "snapshot", "timestamp"):
        releases.rotate(name, place / "forked", place / "stolen")
    for _ in range(3):
        releases.refresh(place / "forked", place / "stolen")
    evil = make_bundle(place, 7)
    releases.publish(evil, place / "forked", place / "stolen", releases.Rollout())
    with pytest.raises(TrustError, match="forked"):
        new_device(place, Folder(place / "forked")).check()
    assert device.store.state.active == first


def test_a_retired_release_does_not_come_back(place: Path) -> None:
    """What was seen is remembered also when there was nothing to take."""
    shutil.copytree(place / "channel", place / "yesterday")
    new_device(place).check()
    releases.retire(NAME, place / "channel", place / "keys")
    with pytest.raises(NothingToDoError):
        new_device(place).check()
    with pytest.raises(TrustError, match="was seen before"):
        new_device(place, Folder(place / "yesterday")).check()
