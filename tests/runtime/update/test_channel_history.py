"""What a device remembers of a channel: versions, names, keys and targets."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
from fleet import NAME, make_bundle, publish
from tufsim import LINK, REFUSED, ROLES, TAKEN, Sim, nothing, put

from edgepack.channel import releases
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.store.store import Store


def renamed(signed: dict[str, Any]) -> None:
    """Give the release another name."""
    signed["targets"]["other/any"] = signed["targets"].pop(NAME)


def test_a_name_that_was_never_offered_is_a_wrong_one(sim: Sim) -> None:
    """It may be mistyped, so the names that there are are said; one that was seen is only gone."""
    shutil.copytree(sim.place / "channel", sim.place / "before")
    sim.edit("targets", renamed)
    assert sim.check() == 2
    shutil.rmtree(sim.place / "channel")
    shutil.move(sim.place / "before", sim.place / "channel")
    shutil.rmtree(sim.place / "device")
    assert sim.check() == TAKEN
    sim.edit("targets", renamed)
    assert sim.check() == 7


@pytest.mark.parametrize("role", ROLES)
def test_an_older_version_of_a_role_is_refused(sim: Sim, role: str) -> None:
    """Rollback of one role, everything else being newer and rightly signed."""
    old = copy.deepcopy(sim.read(role))
    sim.edit(role, nothing)
    sim.edit(role, nothing)
    assert sim.check() == TAKEN
    newest = sim.read(role)["signed"]["version"]
    sim.edit(role, put("version", old["signed"]["version"]))
    assert sim.read("timestamp")["signed"]["version"] > 0
    if role != "timestamp":
        for path in sim.metadata.glob(f"*.{role}.json"):
            if int(path.name.partition(".")[0]) >= newest:
                path.unlink()
    assert sim.check() == REFUSED


@pytest.mark.parametrize("role", ROLES)
def test_a_fast_forward_is_undone_by_new_keys(sim: Sim, role: str) -> None:
    """Who stole a key counts up to the end; when the key is replaced, the count starts anew."""
    place = sim.place
    shutil.copytree(place / "channel", place / "before")
    sim.edit(role, put("version", 2**31 - 2))
    assert sim.check() == TAKEN
    shutil.rmtree(place / "channel")
    shutil.copytree(place / "before", place / "channel")
    assert sim.check() == REFUSED
    releases.rotate("snapshot", place / "channel", place / "keys")
    releases.rotate("timestamp", place / "channel", place / "keys")
    if role == "targets":
        releases.rotate("targets", place / "channel", place / "keys")
    publish(place, make_bundle(place, 2))
    assert sim.check() == TAKEN


@pytest.mark.parametrize("name", ["root-1", "root-2", "root-3", *ROLES])
def test_every_key_can_be_replaced(sim: Sim, name: str) -> None:
    """A device that saw the old key and one that did not both follow."""
    assert sim.check() == TAKEN
    releases.rotate(name, sim.place / "channel", sim.place / "keys")
    assert sim.check() == TAKEN
    shutil.rmtree(sim.place / "device")
    assert sim.check() == TAKEN


@pytest.mark.parametrize("field", ["length", "hashes"])
def test_a_target_that_is_not_what_was_signed_is_refused(sim: Sim, field: str) -> None:
    """Its length and its hash bind the release."""
    wrong = {"length": 10, "hashes": {"sha256": "0" * 64}}[field]
    sim.edit("targets", lambda s: s["targets"][NAME].update({field: wrong}))
    code = runtime(
        [
            "update",
            "--store",
            str(sim.place / "device"),
            "--channel",
            str(sim.place / "channel"),
            "--name",
            NAME,
            "--root",
            str(sim.place / "shipped.json"),
        ]
    )
    assert code in (LINK, REFUSED)
    assert not Store.at(sim.place / "device").state.active
