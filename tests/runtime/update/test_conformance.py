"""What the TUF specification asks of a client, scenario by scenario, through the command line.

A repository is changed as a scenario says and signed again by the keys that the scenario allows;
then `edgepack-runtime update --check` takes it (0) or refuses it (5: not trusted, 1: the link).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from tufsim import LINK, REFUSED, ROLES, ROOTS, TAKEN, Sim, edit, expire, nothing, put, raw

from edgepack.channel import keys
from edgepack_runtime.store.store import Store


def twice(sim: Sim) -> None:
    """A root that one key signed twice."""
    value = sim.read("root")
    value["signed"]["version"] += 1
    sim.sign(value, ["root-1", "root-1"])
    sim.write("root", value)


def root_says_other_version(sim: Sim) -> None:
    """`2.root.json` is version 3."""
    value = sim.read("root")
    value["signed"]["version"] = 3
    sim.sign(value, ROOTS)
    sim.write("root", value, "2.root.json")


def gap(sim: Sim) -> None:
    """Version 2 is missing; 3 names keys that 1 does not."""
    for _ in range(2):
        sim.edit("root", nothing)
    (sim.metadata / "2.root.json").unlink()
    keys.make(sim.place / "keys", "timestamp")
    sim.edit("timestamp", nothing)


def many_roots(sim: Sim) -> None:
    """Forty roots, one after the other."""
    for _ in range(40):
        sim.edit("root", nothing)


def expired_on_the_way(sim: Sim) -> None:
    """A root in the middle ran out; the last one did not."""
    fresh = sim.read("root")["signed"]["expires"]
    sim.edit("root", expire)
    sim.edit("root", put("expires", fresh))


def new_root_by_new_keys_alone(sim: Sim) -> None:
    """All three root keys replaced at once, the new root signed by the new ones only."""
    value = sim.read("root")
    old = value["signed"]["roles"]["root"]["keyids"]
    ids = []
    for name in ROOTS:
        keys.make(sim.place / "keys", name)
        key = keys.signer(sim.place / "keys", name).public_key
        value["signed"]["keys"][key.keyid] = key.to_dict()
        ids.append(key.keyid)
    for keyid in old:
        del value["signed"]["keys"][keyid]
    value["signed"]["roles"]["root"]["keyids"] = ids
    value["signed"]["version"] += 1
    sim.sign(value, ROOTS)
    sim.write("root", value)


def unsigned(content: bytes) -> bytes:
    """Drop the signatures."""
    return json.dumps({**json.loads(content), "signatures": []}).encode()


def counted_up(content: bytes) -> bytes:
    """Count the version up, and sign nothing."""
    value = json.loads(content)
    value["signed"]["version"] += 7
    return json.dumps(value).encode()


def key_twice(signed: dict[str, Any]) -> None:
    """Name the timestamp's key a second time."""
    signed["roles"]["timestamp"]["keyids"] *= 2


def swap(sim: Sim) -> None:
    """The snapshot lies where the timestamp should."""
    shutil.copy(sim.path("snapshot"), sim.path("timestamp"))


def list_without_targets(signed: dict[str, Any]) -> None:
    """The snapshot lists no targets."""
    del signed["meta"]["targets.json"]


def hashed(role: str, of: str, *, right: bool) -> Callable[[Sim], None]:
    """Name the hash of the role below, rightly or wrongly."""

    def scenario(sim: Sim) -> None:
        content = sim.path(of).read_bytes()
        digest = hashlib.sha256(content if right else b"other").hexdigest()
        sim.edit(role, lambda s: s["meta"][f"{of}.json"].update(hashes={"sha256": digest}))

    return scenario


def measured(role: str, of: str, extra: int) -> Callable[[Sim], None]:
    """Name the length of the role below, or another one."""

    def scenario(sim: Sim) -> None:
        length = len(sim.path(of).read_bytes()) + extra
        sim.edit(role, lambda s: s["meta"][f"{of}.json"].update(length=length))

    return scenario


def names(role: str, of: str, by: int) -> Callable[[Sim], None]:
    """Name another version of the role below than the one that is there."""

    def change(signed: dict[str, Any]) -> None:
        signed["meta"][f"{of}.json"]["version"] += by

    return edit(role, change)


SCENARIOS: dict[str, tuple[Callable[[Sim], None], int]] = {
    "nothing is changed": (lambda _: None, TAKEN),
    "all is signed anew": (edit("targets", nothing), TAKEN),
    "a field that is not known": (edit("timestamp", put("x-more", {"a": 1})), TAKEN),
    "specification 1.9": (edit("timestamp", put("spec_version", "1.9.9")), TAKEN),
    "specification 2": (edit("timestamp", put("spec_version", "2.0.0")), REFUSED),
    "no version of the specification": (edit("timestamp", put("spec_version", "")), REFUSED),
    "another root": (edit("root", nothing), TAKEN),
    "forty roots": (many_roots, TAKEN),
    "a root is missing": (gap, REFUSED),
    "a root says another version": (root_says_other_version, REFUSED),
    "a root by one key of two": (edit("root", nothing, "root-1"), REFUSED),
    "a root by two keys of three": (edit("root", nothing, "root-2", "root-3"), TAKEN),
    "a root by one key twice": (twice, REFUSED),
    "a root by a key of another role": (edit("root", nothing, "root-1", "targets"), REFUSED),
    "a root by new keys alone": (new_root_by_new_keys_alone, REFUSED),
    "a root that ran out": (edit("root", expire), REFUSED),
    "a root that ran out on the way": (expired_on_the_way, TAKEN),
    "a root without roles": (edit("root", put("roles", {})), REFUSED),
    "a threshold of zero": (edit("root", put("roles/timestamp/threshold", 0)), REFUSED),
    "a threshold above the keys": (edit("root", put("roles/timestamp/threshold", 2)), REFUSED),
    "a role without keys": (edit("root", put("roles/timestamp/keyids", [])), REFUSED),
    "a key named twice": (edit("root", key_twice), REFUSED),
    **{f"{role} ran out": (edit(role, expire), REFUSED) for role in ROLES},
    **{f"{role} by another key": (edit(role, nothing, "root-1"), REFUSED) for role in ROLES},
    **{
        f"{role} {how}": (raw(role, change), REFUSED)
        for role in ROLES
        for how, change in (
            ("is empty", lambda _: b""),
            ("is cut", lambda b: b[: len(b) // 2]),
            ("is no JSON", lambda _: b"<html></html>"),
            ("is a list", lambda _: b"[]"),
            ("lost its signatures", unsigned),
            ("was changed after it was signed", counted_up),
        )
    },
    "timestamp is the snapshot": (swap, REFUSED),
    "a version that is a text": (edit("timestamp", put("version", "9")), REFUSED),
    "a version of zero": (edit("timestamp", put("version", 0)), REFUSED),
    "an expiry that is no time": (edit("timestamp", put("expires", "soon")), REFUSED),
    "timestamp names a later snapshot": (names("timestamp", "snapshot", 1), LINK),
    "timestamp names two files": (edit("timestamp", put("meta/x.json", {"version": 1})), REFUSED),
    "snapshot lists no targets": (edit("snapshot", list_without_targets), REFUSED),
    "snapshot names later targets": (names("snapshot", "targets", 1), LINK),
    "the right hash of the snapshot": (hashed("timestamp", "snapshot", right=True), TAKEN),
    "a wrong hash of the snapshot": (hashed("timestamp", "snapshot", right=False), REFUSED),
    "the right hash of the targets": (hashed("snapshot", "targets", right=True), TAKEN),
    "a wrong hash of the targets": (hashed("snapshot", "targets", right=False), REFUSED),
    "the right length of the snapshot": (measured("timestamp", "snapshot", 0), TAKEN),
    "a shorter length of the snapshot": (measured("timestamp", "snapshot", -1), LINK),
    "the right length of the targets": (measured("snapshot", "targets", 0), TAKEN),
    "a shorter length of the targets": (measured("snapshot", "targets", -1), LINK),
    "a target without a hash": (edit("targets", put("targets/other", {})), REFUSED),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fresh_device_follows_the_specification(sim: Sim, name: str) -> None:
    """It takes what is right and refuses what is not, the first time that it looks."""
    scenario, code = SCENARIOS[name]
    scenario(sim)
    assert sim.check() == code


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_device_that_followed_before_does_too(sim: Sim, name: str) -> None:
    """And when it has seen the channel before, whose versions it remembers."""
    scenario, code = SCENARIOS[name]
    assert sim.check() == TAKEN
    scenario(sim)
    assert sim.check() == code
    floors = Store.at(sim.place / "device").state.floors
    assert floors["root"] >= 1
