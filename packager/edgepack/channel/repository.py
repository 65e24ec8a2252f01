"""The signed metadata of a channel, as defined by The Update Framework, and the keys that sign it.

Loaded metadata must be signed by these keys; otherwise it is not signed again.  Files are written
whole and durably, in the order in which a device may read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgepack.channel import keys, root, rotation
from edgepack.channel.ledger import Ledger
from edgepack.channel.metadata import METADATA, roots
from edgepack.channel.root import OwnRoot, digest
from edgepack.channel.rotation import Rotation
from edgepack.channel.site import Site
from edgepack_runtime.errors import InputError

DAYS = {"root": root.DAYS, "targets": 365, "snapshot": 30, "timestamp": 7}
_SOON = 90  # days before the end in which a role is renewed


class Repository:
    """The metadata of a channel, loaded or new, and the keys to sign it with.

    Loaded metadata must be signed by these keys.  `root.json` in the key folder is the last root
    that they made; the rest is checked under it, and against what these keys signed before.  So
    nothing that somebody put into the channel's folder, or put back, is signed without notice.

    Attributes:
        days: how long signed metadata is valid, by role.
        behind: a publish was interrupted, so the snapshot does not name the newest targets.

    """

    def __init__(self, site: Site, key_folder: Path, *, create: bool = False) -> None:
        self._site = site
        self._folder = site.folder
        self._keys = key_folder.resolve()
        self._ledger = Ledger(self._keys)
        self.root = OwnRoot(site, self._keys)
        self._now = datetime.now(UTC).replace(microsecond=0)
        self.days = dict(DAYS)
        self.behind = False
        self._content: dict[str, bytes] = {}  # by role, as read or signed
        if (self._folder / METADATA / "timestamp.json").is_file():
            self._read()
        elif create:
            self._make()
        else:
            raise InputError(f"no channel at {self._folder}: {METADATA}/timestamp.json is missing")

    def _make(self) -> None:
        from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

        if self._folder.is_dir() and any(path.name != METADATA for path in self._folder.iterdir()):
            raise InputError(
                f"{self._folder} holds files, but not a channel; choose an empty folder"
            )
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot(meta={"targets.json": MetaFile(version=1)}))
        self.timestamp = Metadata(Timestamp(snapshot_meta=MetaFile(version=1)))
        for metadata in (self.targets, self.snapshot, self.timestamp):
            metadata.signed.version = 0  # signing increments it
        self.root.make()
        self.save({"targets"})

    def _read(self) -> None:
        self.root.follow()
        rotation.adopt(self._keys, self.root.signed)
        for name in self._ledger.names():
            self._site.bring(f"{METADATA}/{name}")
        checked = {role: self.root.checked(role) for role in ("targets", "snapshot", "timestamp")}
        self.targets, self.snapshot, self.timestamp = (found for found, _ in checked.values())
        self._content = {role: content for role, (_, content) in checked.items()}
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

    def _finish_rotation(self) -> None:
        if signed := rotation.under_way(self._keys).signed.keys():
            self.save(signed & {"targets"})
            self.behind = False
        rotation.end(self._keys)

    def rotate(self, name: str) -> None:
        """Replace a key; the old one is removed only when the new root is in place."""
        role = keys.role(name)
        old = self.root.signers()
        gone = rotation.going(self._keys, self.root.signed, name)
        signed = {} if role == "root" else {role: digest(self._content[role])}
        for other in ({"snapshot", "timestamp"} - {role}) if signed else ():
            self.root.signer(other)  # a missing key must be noticed before the root is replaced
        rotation.begin(self._keys, Rotation(name, signed))
        new = keys.signer(self._keys, f"{name}.new")
        self.root.replace(role, gone, new, old)
        rotation.adopt(self._keys, self.root.signed)
        self._finish_rotation()

    def renew(self) -> list[str]:
        """Renew what these keys can sign; return what expires soon and was not renewed."""
        soon = self._now + timedelta(days=_SOON)
        left, changed = self.root.renew(soon), set()
        if self.targets.signed.expires < soon:
            if (self._keys / "targets.pem").is_file():
                changed = {"targets"}
            else:
                left.append(f"targets expires on {self.targets.signed.expires:%Y-%m-%d}")
        self.save(changed)
        return left

    def save(self, changed: set[str]) -> None:
        """Sign and write what changed, then the snapshot, then the timestamp.

        Raises:
            EdgepackError: another machine published meanwhile; the channel has its state.

        """
        made = self._signed(changed, self.days)
        for role in sorted(made.keys() - {"timestamp"}, reverse=True):  # targets, snapshot
            path = _path(role, getattr(self, role).signed.version)
            self._site.create(path, made[role])
        self._site.replace(_path("timestamp"), made["timestamp"], self._content.get("timestamp"))
        self._content |= made
        self._ledger.confirm(
            {role: (getattr(self, role).signed.version, c) for role, c in self._content.items()}
        )

    def copy(self, days: int) -> tuple[dict[str, bytes], datetime]:
        """Return this channel's metadata for a copy that is valid for `days` days.

        Only metadata that was read and checked is copied, so that nothing else from the folder gets
        in.  Returns {path: content}, and when the first of it expires.
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

        The version numbers are recorded before anybody can see them, so none is used twice.
        """
        roles = [*sorted(changed), "snapshot", "timestamp"]
        signers = {role: self.root.signer(role) for role in roles}
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


def _path(role: str, version: int = 0) -> str:
    prefix = f"{version}." if version else ""
    return f"{METADATA}/{prefix}{role}.json"
