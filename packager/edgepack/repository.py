"""The signed metadata of a channel, as The Update Framework has it, and the keys that sign it.

What is loaded was signed by these keys, or it is not signed again; what is written is whole and
durable, in the order in which a device may read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import keys
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Metadata

METADATA = "metadata"
DAYS = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made
_SOON = 90  # days before the end in which a role is renewed


class Repository:
    """The metadata of a channel, loaded or new, and the keys to sign it with.

    What is loaded was signed by these keys: `root.json` in the key folder is the root that they
    made last, and the rest is checked under it, so that nothing is signed unseen that somebody
    put into the channel's folder.

    Attributes:
        days: how long what is signed is valid, by role.
        behind: a publish was interrupted: the snapshot does not name the newest targets.

    """

    def __init__(self, folder: Path, key_folder: Path, *, create: bool = False) -> None:
        self._folder = folder
        self._keys = key_folder
        self._now = datetime.now(UTC).replace(microsecond=0)
        self.days = dict(DAYS)
        self.behind = False
        if (folder / METADATA / "root.json").is_file():
            self._read()
        elif not create:
            raise InputError(f"no channel at {folder}: {METADATA}/root.json is missing")
        elif folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds files and no channel; choose an empty folder")
        else:
            self._make()

    def _make(self) -> None:
        from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

        self.root = Metadata(Root(consistent_snapshot=True))
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot(meta={"targets.json": MetaFile(version=1)}))
        self.timestamp = Metadata(Timestamp(snapshot_meta=MetaFile(version=1)))
        for metadata in (self.root, self.targets, self.snapshot, self.timestamp):
            metadata.signed.version = 0  # signing counts it up
        for name in keys.NAMES:
            self.root.signed.add_key(keys.signer(self._keys, name).public_key, _role(name))
        self.root.signed.roles["root"].threshold = keys.ROOT_THRESHOLD
        self.sign_root()
        self.save({"targets"})

    def _read(self) -> None:
        trusted = self._keys / _TRUSTED
        self.root = load(self._folder, "root")
        if not trusted.is_file():
            raise InputError(f"{trusted} is missing: copy the root.json that these keys made there")
        if trusted.read_bytes() != self.root.to_bytes():
            raise InputError(
                f"the root of {self._folder} is not the one that the keys in {self._keys} made; "
                "copy the newest root.json to both, from where you trust it"
            )
        self._adopt()
        self.targets, self.snapshot, self.timestamp = (
            self._checked(role) for role in ("targets", "snapshot", "timestamp")
        )
        listed = self.snapshot.signed.meta["targets.json"].version
        shown = self.timestamp.signed.snapshot_meta.version
        self.behind = (listed, shown) != (
            self.targets.signed.version, self.snapshot.signed.version
        )  # fmt: skip

    def _checked(self, role: str) -> Metadata[Any]:
        """Load a role's metadata and see that its keys signed it."""
        from tuf.api.exceptions import RepositoryError

        found = load(self._folder, role)
        try:
            self.root.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except RepositoryError as exc:
            raise InputError(
                f"{role} in {self._folder / METADATA} is not signed by its keys: somebody else "
                "wrote it; restore the folder, then publish again"
            ) from exc
        return found

    def _adopt(self) -> None:
        """Finish a rotation that was interrupted: a new key that the root names is the key."""
        for name in keys.NAMES:
            new = self._keys / f"{name}.new.pem"
            if not new.is_file():
                continue
            keyid = keys.signer(self._keys, f"{name}.new").public_key.keyid
            if keyid in self.root.signed.roles[_role(name)].keyids:
                new.replace(self._keys / f"{name}.pem")
            else:
                new.unlink()

    def rotate(self, name: str) -> None:
        """Replace a key by a new one; the old one goes only when the root that names it stands."""
        role = _role(name)
        old = [keys.signer(self._keys, root) for root in keys.present(self._keys, keys.ROOTS)]
        if len(old) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        if role == "root":
            gone = [keys.signer(self._keys, name).public_key.keyid]
        else:
            gone = list(self.root.signed.roles[role].keyids)
        keys.make(self._keys, f"{name}.new")
        new = keys.signer(self._keys, f"{name}.new")
        for keyid in gone:
            self.root.signed.revoke_key(keyid, role)
        self.root.signed.add_key(new.public_key, role)
        self.sign_root([*old, new] if role == "root" else old)
        self._adopt()
        self.save({role} if role == "targets" else set())

    def sign_root(self, signers: Iterable[Signer] = ()) -> None:
        """Write the next root, signed by some keys, or by all root keys that are here."""
        root = self.root.signed
        found = list(signers) or [
            keys.signer(self._keys, name) for name in keys.present(self._keys, keys.ROOTS)
        ]
        if len(found) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        root.version += 1
        root.expires = self._now + timedelta(days=self.days["root"])
        self.root.signatures.clear()
        for signer in found:
            self.root.sign(signer, append=True)
        content = self.root.to_bytes()
        for path in (f"{root.version}.root.json", "root.json"):
            write(self._folder / METADATA / path, content)
        write(self._keys / _TRUSTED, content)

    def renew(self) -> list[str]:
        """Sign anew what these keys can; return what runs out soon and was not."""
        soon = self._now + timedelta(days=_SOON)
        left = []
        if self.root.signed.expires < soon:
            if len(keys.present(self._keys, keys.ROOTS)) >= keys.ROOT_THRESHOLD:
                self.sign_root()
            else:
                left.append(f"root expires on {self.root.signed.expires:%Y-%m-%d}")
        changed = set()
        if self.targets.signed.expires < soon:
            if (self._keys / "targets.pem").is_file():
                changed = {"targets"}
            else:
                left.append(f"targets expires on {self.targets.signed.expires:%Y-%m-%d}")
        self.save(changed)
        return left

    def save(self, changed: set[str]) -> None:
        """Sign and write what changed, then snapshot, then timestamp."""
        roles = [*sorted(changed), "snapshot", "timestamp"]
        signers = {role: self._signer(role) for role in roles}
        if "targets" in changed:
            self._sign(self.targets, "targets", signers["targets"])
        self.snapshot.signed.meta["targets.json"].version = self.targets.signed.version
        self._sign(self.snapshot, "snapshot", signers["snapshot"])
        self.timestamp.signed.snapshot_meta.version = self.snapshot.signed.version
        self._sign(self.timestamp, "timestamp", signers["timestamp"])

    def _signer(self, role: str) -> Signer:
        found = keys.signer(self._keys, role)
        if found.public_key.keyid not in self.root.signed.roles[role].keyids:
            raise InputError(f"{self._keys / role}.pem is not the {role} key of this channel")
        return found

    def _sign(self, metadata: Metadata[Any], role: str, signer: Signer) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._now + timedelta(days=self.days[role])
        metadata.sign(signer)
        prefix = "" if role == "timestamp" else f"{metadata.signed.version}."
        write(self._folder / METADATA / f"{prefix}{role}.json", metadata.to_bytes())


def _role(name: str) -> str:
    return name.partition("-")[0]


@contextmanager
def alone(key_folder: Path) -> Iterator[None]:
    """Let one command at a time sign with these keys."""
    import fcntl

    if not key_folder.is_dir():
        raise InputError(f"no keys at {key_folder}; edgepack keys init makes them")
    with (key_folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def newest(folder: Path) -> list[Path]:
    """Return the metadata files that a device needs: every root, and the newest of the rest."""
    roots = sorted((folder / METADATA).glob("*root.json"))
    return [*roots, *(_newest(folder, role) for role in ("targets", "snapshot", "timestamp"))]


def load(folder: Path, role: str) -> Metadata[Any]:
    """Return the newest metadata of a role that lies in a channel, unchecked."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    path = _newest(folder, role)
    try:
        return Metadata.from_bytes(path.read_bytes())
    except RepositoryError as exc:
        raise InputError(f"{path} is damaged: {exc}") from exc


def _newest(folder: Path, role: str) -> Path:
    paths = list((folder / METADATA).glob(f"*{role}.json"))
    if not paths:
        raise InputError(f"no channel at {folder}: {METADATA}/{role}.json is missing")
    return max(
        paths, key=lambda path: int(path.name.partition(".")[0]) if path.name[0].isdigit() else -1
    )


def write(path: Path, content: bytes) -> None:
    """Write a file whole, and durably: what the timestamp names must be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.part")
    with work.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    work.replace(path)
