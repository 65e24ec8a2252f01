"""The signed metadata of a channel, as The Update Framework has it, and the keys that sign it.

What is loaded was signed by these keys, or it is not signed again; what is written is whole and
durable, in the order in which a device may read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.channel import keys, rotation
from edgepack.channel.durable import read_plain, write
from edgepack.channel.ledger import Ledger
from edgepack.channel.metadata import METADATA, load, newest, number, parsed, root_of, roots
from edgepack.channel.rotation import Rotation
from edgepack.channel.site import Site
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Signer
    from tuf.api.metadata import Metadata

DAYS = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made
_SOON = 90  # days before the end in which a role is renewed


class Repository:
    """The metadata of a channel, loaded or new, and the keys to sign it with.

    What is loaded was signed by these keys: `root.json` in the key folder is the root that they
    made last, and the rest is checked under it and against what these keys signed before, so that
    nothing is signed unseen that somebody put into the channel's folder, or put back.

    Attributes:
        days: how long what is signed is valid, by role.
        behind: a publish was interrupted: the snapshot does not name the newest targets.

    """

    def __init__(self, site: Site, key_folder: Path, *, create: bool = False) -> None:
        self._site = site
        self._folder = site.folder
        self._keys = key_folder.resolve()
        self._ledger = Ledger(self._keys)
        self._now = datetime.now(UTC).replace(microsecond=0)
        self.days = dict(DAYS)
        self.behind = False
        self._content: dict[str, bytes] = {}  # by role, as it was read or signed
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
            self.root.signed.add_key(keys.signer(self._keys, name).public_key, keys.role(name))
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
        rotation.adopt(self._keys, self.root.signed)
        for name in self._ledger.names():
            self._site.bring(f"{METADATA}/{name}")
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
        for role, content in self._content.items():
            version = getattr(self, role).signed.version
            self._ledger.check(role, version, content, self._folder / METADATA)
        self.behind = there != named
        if rotation.is_half_way(self._keys):
            self._finish_rotation()

    def _follow_root(self) -> None:
        """Take the channel's newest root, if what leads to it from ours is signed as TUF asks.

        That is the same one, but for a rotation that was interrupted.
        """
        from tuf.api.exceptions import RepositoryError

        self.root = self._trusted()
        last = load(self._folder, "root")
        try:
            while self.root.signed.version < last.signed.version:
                version = self.root.signed.version + 1
                follower, _ = root_of(self._folder, version)
                if follower.signed.version != version:
                    break
                for judge in (self.root, follower):
                    judge.signed.verify_delegate("root", follower.signed_bytes, follower.signatures)
                self.root = follower
        except (RepositoryError, InputError):
            pass  # it is another's
        if self.root.to_bytes() != last.to_bytes():
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
        return parsed(path, path.read_bytes())

    def _checked(self, role: str) -> Metadata[Any]:
        """Load a role's metadata and see that its keys signed it."""
        from tuf.api.exceptions import RepositoryError

        path = newest(self._folder, role)
        content = read_plain(path)  # once: what is judged is what is signed again
        found = parsed(path, content)
        self._content[role] = content
        if number(path) not in (-1, found.signed.version):
            raise InputError(f"{path} holds version {found.signed.version}: restore the folder")
        try:
            self.root.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except RepositoryError as exc:
            if _digest(content) == rotation.under_way(self._keys).signed.get(role):
                return found  # the key that is being replaced has signed it
            raise InputError(
                f"{role} in {self._folder / METADATA} is not signed by its keys: somebody else "
                "wrote it; restore the folder, then publish again"
            ) from exc
        return found

    def _finish_rotation(self) -> None:
        if signed := rotation.under_way(self._keys).signed.keys():
            self.save(signed & {"targets"})
            self.behind = False
        rotation.end(self._keys)

    def rotate(self, name: str) -> None:
        """Replace a key by a new one; the old one goes only when the root that names it stands."""
        role = keys.role(name)
        old = self._root_signers()
        gone = rotation.going(self._keys, self.root.signed, name)
        signed = {} if role == "root" else {role: _digest(self._content[role])}
        for other in ({"snapshot", "timestamp"} - {role}) if signed else ():
            self._signer(other)  # what is not here must be missed before the root is replaced
        rotation.begin(self._keys, Rotation(name, signed))
        new = keys.signer(self._keys, f"{name}.new")
        for keyid in gone:
            self.root.signed.revoke_key(keyid, role)
        self.root.signed.add_key(new.public_key, role)
        self.sign_root([*old, new] if role == "root" else old)
        rotation.adopt(self._keys, self.root.signed)
        self._finish_rotation()

    def _root_signers(self) -> list[CryptoSigner]:
        """Return all root keys that are here; an `InputError` if they cannot sign a new root."""
        found = [keys.signer(self._keys, name) for name in keys.present(self._keys, keys.ROOTS)]
        if len(found) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        return found

    def sign_root(self, signers: Iterable[Signer] = ()) -> None:
        """Write the next root, signed by some keys, or by all root keys that are here."""
        root = self.root.signed
        found = list(signers) or self._root_signers()
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
        """Sign and write what changed, then snapshot, then timestamp.

        Raises:
            EdgepackError: another machine published meanwhile; what is there is the other's.

        """
        made = self._signed(changed, self.days)
        for role in sorted(made.keys() - {"timestamp"}, reverse=True):  # targets, snapshot
            path = _path(role, getattr(self, role).signed.version)
            self._site.create(path, made[role])
        self._site.replace(_path("timestamp"), made["timestamp"], self._content.get("timestamp"))
        self._content |= made
        self._ledger.confirm({
            role: (getattr(self, role).signed.version, content)
            for role, content in self._content.items()
        })  # fmt: skip

    def copy(self, days: int) -> tuple[dict[str, bytes], datetime]:
        """Return this channel's metadata for a copy that is valid for so many days.

        What was read and checked is copied, so that nothing else gets into it that lies there.
        Return {path: content}, and when the first of it runs out.
        """
        files = dict(roots(self._folder, self.root.signed.version))
        files[_path("targets", self.targets.signed.version)] = self._content["targets"]
        made = self._signed(set(), {**self.days, "snapshot": days, "timestamp": days})
        files[_path("snapshot", self.snapshot.signed.version)] = made["snapshot"]
        files[_path("timestamp")] = made["timestamp"]
        signed = (self.root.signed, self.targets.signed, self.timestamp.signed)
        return files, min(metadata.expires for metadata in signed)

    def _signed(self, changed: set[str], days: Mapping[str, int]) -> dict[str, bytes]:
        """Sign what changed, snapshot and timestamp; return {role: content}.

        The numbers are noted before anybody can see what they stand on: none is used twice.
        """
        roles = [*sorted(changed), "snapshot", "timestamp"]
        signers = {role: self._signer(role) for role in roles}
        made = {}
        for role in roles:
            metadata = getattr(self, role)
            self.snapshot.signed.meta["targets.json"].version = self.targets.signed.version
            self.timestamp.signed.snapshot_meta.version = self.snapshot.signed.version
            metadata.signed.version = self._ledger.after(role, metadata.signed.version)
            metadata.signed.expires = self._now + timedelta(days=days[role])
            metadata.sign(signers[role])
            made[role] = metadata.to_bytes()
        self._ledger.reserve({role: getattr(self, role).signed.version for role in roles})
        return made

    def _signer(self, role: str) -> Signer:
        found = keys.signer(self._keys, role)
        if found.public_key.keyid not in self.root.signed.roles[role].keyids:
            raise InputError(f"{self._keys / role}.pem is not the {role} key of this channel")
        return found


def _path(role: str, version: int = 0) -> str:
    prefix = f"{version}." if version else ""
    return f"{METADATA}/{prefix}{role}.json"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
