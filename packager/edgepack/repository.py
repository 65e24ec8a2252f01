"""The signed metadata of a channel, as The Update Framework has it, and the keys that sign it.

What is loaded was signed by these keys, or it is not signed again; what is written is whole and
durable, in the order in which a device may read it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import keys
from edgepack.site import METADATA, Site, write
from edgepack_runtime.errors import InputError
from edgepack_runtime.manifest import canonical_json

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Metadata

DAYS = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made
_ROTATING = "rotating.json"  # in the key folder: what the key that goes has signed
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

    def __init__(self, site: Site, key_folder: Path, *, create: bool = False) -> None:
        self._site = site
        self._folder = site.folder
        self._keys = key_folder
        self._now = datetime.now(UTC).replace(microsecond=0)
        self.days = dict(DAYS)
        self.behind = False
        self._digests: dict[str, str] = {}
        if (self._folder / METADATA / "timestamp.json").is_file():
            self._read()
        elif create:
            self._make()
        else:
            raise InputError(f"no channel at {self._folder}: {METADATA}/timestamp.json is missing")

    def _make(self) -> None:
        from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

        if self._folder.is_dir() and any(path.name != METADATA for path in self._folder.iterdir()):
            raise InputError(f"{self._folder} holds files and no channel; choose an empty folder")
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot(meta={"targets.json": MetaFile(version=1)}))
        self.timestamp = Metadata(Timestamp(snapshot_meta=MetaFile(version=1)))
        for metadata in (self.targets, self.snapshot, self.timestamp):
            metadata.signed.version = 0  # signing counts it up
        if (self._keys / _TRUSTED).is_file():
            self._resume_making()
        else:
            self._make_root()
        self.save({"targets"})

    def _make_root(self) -> None:
        from tuf.api.metadata import Metadata, Root

        self.root = Metadata(Root(consistent_snapshot=True))
        self.root.signed.version = 0
        for name in keys.NAMES:
            self.root.signed.add_key(keys.signer(self._keys, name).public_key, _role(name))
        self.root.signed.roles["root"].threshold = keys.ROOT_THRESHOLD
        self.sign_root()

    def _resume_making(self) -> None:
        """Go on with a channel of which there is no more than its root, made with these keys."""
        self.root = self._trusted()
        path = self._folder / METADATA / "1.root.json"
        if not path.is_file() or path.read_bytes() != self.root.to_bytes():
            raise InputError(
                f"no channel at {self._folder}, and the keys in {self._keys} have one: look at the "
                "path, or copy that channel there; a new channel takes new keys"
            )

    def _read(self) -> None:
        self._follow_root()
        self._adopt()
        self.targets, self.snapshot, self.timestamp = (
            self._checked(role) for role in ("targets", "snapshot", "timestamp")
        )
        named = (
            self.snapshot.signed.meta["targets.json"].version,
            self.timestamp.signed.snapshot_meta.version,
        )
        there = (self.targets.signed.version, self.snapshot.signed.version)
        if there[0] < named[0] or there[1] < named[1]:
            raise InputError(
                f"{self._folder / METADATA} lacks the newest targets or snapshot: restore it"
            )
        self.behind = there != named
        if (name := self._rotating()["name"]) and not (self._keys / f"{name}.new.pem").is_file():
            self._finish_rotation()  # the root names the new key

    def _follow_root(self) -> None:
        """Take the channel's newest root, if what leads to it from ours is signed as TUF asks.

        That is the same one, but for a rotation that was interrupted.
        """
        from tuf.api.exceptions import RepositoryError

        self.root = self._trusted()
        newest = load(self._folder, "root")
        try:
            while self.root.signed.version < newest.signed.version:
                version = self.root.signed.version + 1
                follower = _load(self._folder / METADATA / f"{version}.root.json")
                if follower.signed.version != version:
                    break
                for judge in (self.root, follower):
                    judge.signed.verify_delegate("root", follower.signed_bytes, follower.signatures)
                self.root = follower
        except (RepositoryError, OSError):
            pass  # it is another's
        if self.root.to_bytes() != newest.to_bytes():
            raise InputError(
                f"the root of {self._folder} is not the one that the keys in {self._keys} made; "
                "copy the newest root.json to both, from where you trust it"
            )
        if self.root.to_bytes() != (self._keys / _TRUSTED).read_bytes():
            self._site.write(f"{METADATA}/root.json", self.root.to_bytes())
            write(self._keys / _TRUSTED, self.root.to_bytes())

    def _trusted(self) -> Metadata[Any]:
        path = self._keys / _TRUSTED
        if not path.is_file():
            raise InputError(f"{path} is missing: copy the root.json that these keys made there")
        return _load(path)

    def _checked(self, role: str) -> Metadata[Any]:
        """Load a role's metadata and see that its keys signed it."""
        from tuf.api.exceptions import RepositoryError

        path = _newest(self._folder, role)
        content = path.read_bytes()  # once: what is judged is what is signed again
        found = _parsed(path, content)
        self._digests[role] = hashlib.sha256(content).hexdigest()
        if _number(path) not in (-1, found.signed.version):
            raise InputError(f"{path} holds version {found.signed.version}: restore the folder")
        try:
            self.root.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except RepositoryError as exc:
            if self._digests[role] == self._rotating()["signed"].get(role):
                return found  # the key that is being replaced has signed it
            raise InputError(
                f"{role} in {self._folder / METADATA} is not signed by its keys: somebody else "
                "wrote it; restore the folder, then publish again"
            ) from exc
        return found

    def _rotating(self) -> dict[str, Any]:
        """Return the name of the key that is being replaced, and what it signed: {role: sha256}."""
        path = self._keys / _ROTATING
        return json.loads(path.read_bytes()) if path.is_file() else {"name": "", "signed": {}}

    def _finish_rotation(self) -> None:
        if signed := self._rotating()["signed"].keys():
            self.save(signed & {"targets"})
            self.behind = False
        (self._keys / _ROTATING).unlink()

    def _adopt(self) -> None:
        """Finish a rotation that was interrupted: a new key that the root names is the key."""
        for name in keys.NAMES:
            new = self._keys / f"{name}.new.pem"
            if not new.is_file():
                continue
            keyid = keys.signer(self._keys, f"{name}.new").public_key.keyid
            if keyid in self.root.signed.roles[_role(name)].keyids:
                new.replace(self._keys / f"{name}.pem")

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
        signed = {} if role == "root" else {role: self._digests[role]}
        for other in ({"snapshot", "timestamp"} - {role}) if signed else ():
            self._signer(other)  # what is not here must be missed before the root is replaced
        write(self._keys / _ROTATING, canonical_json({"name": name, "signed": signed}))
        keys.make(self._keys, f"{name}.new")
        new = keys.signer(self._keys, f"{name}.new")
        for keyid in gone:
            self.root.signed.revoke_key(keyid, role)
        self.root.signed.add_key(new.public_key, role)
        self.sign_root([*old, new] if role == "root" else old)
        self._adopt()
        self._finish_rotation()

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
            self._site.write(f"{METADATA}/{path}", content)
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
        content = metadata.to_bytes()
        self._site.write(f"{METADATA}/{prefix}{role}.json", content)
        self._digests[role] = hashlib.sha256(content).hexdigest()


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
    return _load(_newest(folder, role))


def _load(path: Path) -> Metadata[Any]:
    return _parsed(path, path.read_bytes())


def _parsed(path: Path, content: bytes) -> Metadata[Any]:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    try:
        return Metadata.from_bytes(content)
    except RepositoryError as exc:
        raise InputError(f"{path} is damaged: {exc}") from exc


def _newest(folder: Path, role: str) -> Path:
    paths = [
        path for path in (folder / METADATA).glob(f"*{role}.json")
        if re.fullmatch(rf"(\d+\.)?{role}\.json", path.name)
    ]  # fmt: skip
    if not paths:
        raise InputError(f"no channel at {folder}: {METADATA}/{role}.json is missing")
    return max(paths, key=_number)


def _number(path: Path) -> int:
    """Return the version in the name of a file; -1 if there is none."""
    first = path.name.partition(".")[0]
    return int(first) if first.isdigit() else -1
