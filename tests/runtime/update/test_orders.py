"""What a person or a carrier orders: rollbacks, retries, another name, a rollout."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import handmade
import pytest
from fleet import NAME, Command, make_bundle, publish

from edgepack.channel import releases
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.store.store import Store


def test_what_failed_here_can_be_forgiven(place: Path, update: Command, call: Command) -> None:
    """`retry` lets it be tried again; with nothing to forgive there is nothing to do."""
    assert call("retry")[0] == 7
    update()
    publish(place, make_bundle(place, 2))
    update()
    call("rollback")
    assert update()[0] == 7
    assert len(call("retry")[1]["forgiven"]) == 1
    assert update()[1]["version"] == "1.2"


def test_a_rollback_of_another_release_does_nothing(
    place: Path, update: Command, call: Command
) -> None:
    """A carrier that takes back its own release twice does not take back the one before."""
    first = update()[1]["digest"]
    publish(place, make_bundle(place, 2))
    second = update()[1]["digest"]
    assert call("rollback", "--release", first)[0] == 7
    assert call("rollback", "--release", second)[1]["active"] == first
    assert call("rollback", "--release", second)[0] == 7
    assert call("status")[1]["active"] == first


def test_a_lock_that_is_held_too_long_is_an_error(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another update is nothing to do about; one that has lasted for hours is said to be stuck."""
    now = time.monotonic()
    with Store.at(place / "device").alone():
        assert update("--check")[0] == 7
        monkeypatch.setattr("edgepack_runtime.store.writer.time.monotonic", lambda: now + 7 * 3600)
        code, answer = update("--check")
        assert code == 1
        assert "for 7 h" in answer["error"]
    assert update("--check")[0] == 0
    with Store.at(place / "device").alone():
        assert update("--check")[0] == 7


def test_a_rollback_leaves_no_device_with_nothing(
    place: Path, update: Command, call: Command
) -> None:
    """With no release before it the one that runs stays, unless the factory's is asked for."""
    first = update()[1]["digest"]
    code, answer = call("rollback")
    assert code == 2
    assert "--factory" in answer["error"]
    publish(place, make_bundle(place, 2))
    update()
    assert [call("rollback")[0] for _ in range(2)] == [0, 2]
    assert call("status")[1]["active"] == first
    assert call("rollback", "--factory")[1]["active"] == "the factory's release"


def test_a_store_keeps_to_its_model(place: Path, update: Command) -> None:
    """Another name is refused, which may be mistyped, unless the change is meant."""
    change = {"name": "other", "release": 1}
    other = publish(place, Bundle.open(handmade.bundle(place / "other.epk", change=change)))
    update()
    code, answer = update("--name", other)
    assert code == 2
    assert f"runs {NAME}" in answer["error"]
    assert update("--name", "smal/any", "--switch-name")[0] == 2
    assert update("--name", other, "--switch-name")[1]["running"] == f"{other} 1.0"


@pytest.mark.parametrize(
    ("machine", "named"),
    [("a" * 32, True), ("b" * 32, True), ("uninitialized", False), ("", False), (None, False)],
)
def test_a_rollout_finds_devices_by_their_machine_id(
    place: Path,
    update: Command,
    monkeypatch: pytest.MonkeyPatch,
    machine: str | None,
    *,
    named: bool,
) -> None:
    """Without --device each has a name of its own; one that has none waits until all take it."""
    if machine is not None:
        (place / "machine-id").write_text(f"{machine}\n")
    monkeypatch.setattr("edgepack_runtime.cli.update._MACHINE_ID", place / "machine-id")
    publish(place, make_bundle(place, 2), percent=99)
    code, answer = update("--check")
    release = releases.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    name = hashlib.sha256(f"edgepack {machine}".encode()).hexdigest()
    number = int(hashlib.sha256(f"{name}/{release}".encode()).hexdigest()[:8], 16) % 100
    assert code == 0  # who is not chosen gets the release before
    assert answer["release"] == (2 if named and number < 99 else 1)
    publish(place, make_bundle(place, 3))
    assert update("--check")[1]["release"] == 3
