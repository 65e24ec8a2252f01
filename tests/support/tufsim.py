"""A channel that is changed and signed anew, and what its device makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fleet import NAME
from securesystemslib.formats import encode_canonical

from edgepack.channel import keys
from edgepack_runtime.cli import main as runtime

Change = Callable[[dict[str, Any]], None]
TAKEN, REFUSED, LINK = 0, 5, 1
ROLES = ("timestamp", "snapshot", "targets")
ROOTS = ("root-1", "root-2", "root-3")


@dataclass
class Sim:
    """A channel, its keys, and a device that may have followed it already."""

    place: Path

    @property
    def metadata(self) -> Path:
        """The folder of the channel's metadata."""
        return self.place / "channel/metadata"

    def path(self, role: str) -> Path:
        """Return the newest file of a role."""
        if role == "timestamp":
            return self.metadata / "timestamp.json"
        found = self.metadata.glob(f"[0-9]*.{role}.json")
        return max(found, key=lambda path: int(path.name.partition(".")[0]))

    def read(self, role: str) -> dict[str, Any]:
        """Return the newest metadata of a role."""
        found: dict[str, Any] = json.loads(self.path(role).read_text())
        return found

    def write(self, role: str, value: dict[str, Any], name: str = "") -> None:
        """Write metadata under the name of its version, or another."""
        prefix = "" if role == "timestamp" else f"{value['signed']['version']}."
        (self.metadata / (name or f"{prefix}{role}.json")).write_text(json.dumps(value))

    def sign(self, value: dict[str, Any], signers: Sequence[str]) -> None:
        """Sign anew with these keys alone."""
        content = (encode_canonical(value["signed"]) or "").encode()
        made = [keys.signer(self.place / "keys", name).sign(content) for name in signers]
        value["signatures"] = [{"keyid": s.keyid, "sig": s.signature} for s in made]

    def edit(self, role: str, change: Change, signers: Sequence[str] = ()) -> None:
        """Change a role and sign it anew, and what names it, so that all of it fits together."""
        value = self.read(role)
        value["signed"]["version"] += 1
        change(value["signed"])
        self.sign(value, signers or (ROOTS if role == "root" else [role]))
        self.write(role, value)
        follows = {"targets": "snapshot", "snapshot": "timestamp"}
        if role in follows:
            version = value["signed"]["version"]
            self.edit(follows[role], lambda s: s["meta"][f"{role}.json"].update(version=version))

    def check(self) -> int:
        """Let the device look; return the exit code of the command."""
        return runtime(
            [
                "update",
                "--check",
                "--store",
                str(self.place / "device"),
                "--channel",
                str(self.place / "channel"),
                "--name",
                NAME,
                "--root",
                str(self.place / "shipped.json"),
            ]
        )


def expire(signed: dict[str, Any]) -> None:
    """It ran out yesterday."""
    signed["expires"] = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def nothing(_: dict[str, Any]) -> None:
    """Change nothing but the version."""


def put(path: str, value: Any) -> Change:
    """Set a field, by its names with dots between them."""

    def change(signed: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            signed = signed[name]
        signed[last] = value

    return change


def edit(role: str, change: Change, *signers: str) -> Callable[[Sim], None]:
    """Return the scenario that edits one role."""
    return lambda sim: sim.edit(role, change, signers)


def raw(role: str, change: Callable[[bytes], bytes]) -> Callable[[Sim], None]:
    """Return the scenario that changes the bytes of a file and signs nothing."""

    def scenario(sim: Sim) -> None:
        path = sim.path(role)
        path.write_bytes(change(path.read_bytes()))

    return scenario
