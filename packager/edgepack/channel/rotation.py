"""The replacement of a key, in the key folder: what is under way, and which key is removed.

The new key waits as `NAME.new.pem` until the root that names it is in place.  Metadata signed by
the old key is accepted until the new key has signed it.
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
    """A replacement that is under way."""

    name: str = ""
    """The name of the key that is being replaced."""
    signed: dict[str, str] = field(default_factory=dict)
    """The metadata that it signed: {role: sha256}."""


def under_way(folder: Path) -> Rotation:
    """Return the unfinished rotation of these keys; an empty one if there is none."""
    path = folder / _FILE
    return Rotation(**json.loads(path.read_bytes())) if path.is_file() else Rotation()


def is_half_way(folder: Path) -> bool:
    """Tell whether a key was replaced but the new one has not signed everything yet."""
    name = under_way(folder).name
    return bool(name) and not (folder / f"{name}.new.pem").is_file()


def begin(folder: Path, rotation: Rotation) -> None:
    """Record the rotation and make the new key."""
    write(folder / _FILE, canonical_json(asdict(rotation)))
    keys.make(folder, f"{rotation.name}.new")


def adopt(folder: Path, root: Root) -> None:
    """Replace an old key with the new one that the root names."""
    for name in keys.NAMES:
        new = folder / f"{name}.new.pem"
        if not new.is_file():
            continue
        keyid = keys.signer(folder, f"{name}.new").public_key.keyid
        if keyid in root.roles[keys.role(name)].keyids:
            new.replace(folder / f"{name}.pem")
            sync_folder(folder)


def end(folder: Path) -> None:
    """Forget the rotation."""
    (folder / _FILE).unlink()


def going(folder: Path, root: Root, name: str) -> list[str]:
    """Return the ids that the root drops when a key is replaced.

    For a role with one key, that is its key.  For the root, it is the key in the file of this name;
    if that file is lost, it is the one key that no file here holds.

    Raises:
        InputError: it is unclear which root key is lost.

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
            f"{folder} holds {len(known) - len(lost)} of the channel's {len(known)} root keys, so "
            f"it is unclear which of the others is {name}; put all but one there"
        )
    return lost
