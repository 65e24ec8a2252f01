"""The replacement of a key, in the key folder: what is under way, and which key goes.

The new key waits as `NAME.new.pem` until the root that names it stands; what the old one signed
is accepted until it is signed by the new one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.channel import keys
from edgepack.channel.durable import sync_folder, write
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from tuf.api.metadata import Root

_FILE = "rotating.json"


@dataclass(frozen=True)
class Rotation:
    """The name of the key that is being replaced, and what it signed: {role: sha256}."""

    name: str = ""
    signed: dict[str, str] = field(default_factory=dict)


def under_way(folder: Path) -> Rotation:
    """Return the rotation that was begun with these keys and not ended; one of nothing if none."""
    path = folder / _FILE
    return Rotation(**json.loads(path.read_bytes())) if path.is_file() else Rotation()


def is_half_way(folder: Path) -> bool:
    """Tell whether a key was replaced, and not everything was signed by the new one yet."""
    name = under_way(folder).name
    return bool(name) and not (folder / f"{name}.new.pem").is_file()


def begin(folder: Path, rotation: Rotation) -> None:
    """Note what is under way and make the new key."""
    write(folder / _FILE, canonical_json(asdict(rotation)))
    keys.make(folder, f"{rotation.name}.new")


def adopt(folder: Path, root: Root) -> None:
    """Let a new key that the root names take the place of the old one."""
    for name in keys.NAMES:
        new = folder / f"{name}.new.pem"
        if not new.is_file():
            continue
        keyid = keys.signer(folder, f"{name}.new").public_key.keyid
        if keyid in root.roles[keys.role(name)].keyids:
            new.replace(folder / f"{name}.pem")
            sync_folder(folder)


def end(folder: Path) -> None:
    """Forget what was under way."""
    (folder / _FILE).unlink()


def going(folder: Path, root: Root, name: str) -> list[str]:
    """Return the ids that a root takes out when a key is replaced.

    Of a role with one key, that key.  Of the root keys, the one in the file of this name; if that
    file is lost, the one that no file here has.

    Raises:
        InputError: it cannot be told which root key is lost.

    """
    role = keys.role(name)
    known = root.roles[role].keyids
    if role != "root":
        return list(known)
    here = keys.present(folder, keys.ROOTS)
    if here.get(name) in known:
        return [here[name]]
    lost = [keyid for keyid in known if keyid not in here.values()]
    if len(lost) != 1:
        raise InputError(
            f"{folder} holds {len(known) - len(lost)} of the channel's {len(known)} root keys: "
            f"which of the others is {name} cannot be told; put all but one there"
        )
    return lost
