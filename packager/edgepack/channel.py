"""A channel: a static folder of signed releases that any web server or bucket serves.

    metadata/   TUF: root, timestamp, snapshot, targets (consistent snapshots)
    blobs/      every file of every release by its sha256

A target is called NAME/BOARD; its file is the release's OCI manifest, from which all other blobs
follow by digest and size.  Blobs are written first and the timestamp last, each whole, so that a
device that reads while a release is published sees the old one or the new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgepack import keys
from edgepack.delta import encode
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.errors import InputError, NothingToDoError, TrustError
from edgepack_runtime.store import BlobLayout
from edgepack_runtime.store.storage import Disk

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Metadata, TargetFile

METADATA, BLOBS = "metadata", "blobs"
_WORTH = 4096  # bytes of a file that a delta is made for
_MOST_SHARE = 0.7  # of the whole: a larger delta is not worth its risk
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made
_SOON = 90  # days before the end in which a role is renewed
_DAYS = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}


@dataclass(frozen=True)
class Rollout:
    """Who takes a release: a share of devices in percent, and cohorts; none named: all of them."""

    percent: int = 100
    cohorts: tuple[str, ...] = ()


def publish(bundle: Bundle, folder: Path, key_folder: Path, rollout: Rollout) -> str:
    """Publish a bundle; return the name of its target.

    Raises:
        InputError: a key is missing, or the folder holds something else.
        NothingToDoError: this very release is what the channel has.

    """
    if not 0 <= rollout.percent <= 100:
        raise InputError(f"a rollout is 0 to 100 percent, not {rollout.percent}")
    with _alone(key_folder):
        channel = Channel(folder, key_folder, create=True)
        manifest = bundle.manifest
        name = f"{manifest.name}/{manifest.target}"
        wanted = _target(bundle, name, rollout)
        known = channel.targets.signed.targets.get(name)
        if known is not None and _is_new(bundle, known, wanted, behind=channel.behind):
            wanted.custom["deltas"] = list(_deltas(known, bundle, folder))
        elif known is not None:
            wanted.custom["deltas"] = known.custom.get("deltas", [])
        bundle.verify()
        for digest in bundle.blobs():
            _write(folder / BLOBS / digest, bytes(bundle.blob(digest)))
        channel.targets.signed.targets[name] = wanted
        channel.save({"targets"})
    return name


def retire(name: str, folder: Path, key_folder: Path) -> None:
    """Take a target out of a channel: devices keep what they run."""
    with _alone(key_folder):
        channel = Channel(folder, key_folder)
        if channel.targets.signed.targets.pop(name, None) is None:
            there = ", ".join(releases(folder))
            raise InputError(f"{folder} has no release {name!r}; it has {there}")
        channel.save({"targets"})


def refresh(folder: Path, key_folder: Path) -> list[str]:
    """Sign anew what expires; return what runs out soon and needs a key that is not here."""
    with _alone(key_folder):
        return Channel(folder, key_folder).renew()


def export(folder: Path, out: Path, key_folder: Path, days: int) -> None:
    """Copy a channel to a folder for a USB stick, its timestamp good for `days`.

    The stick is a channel like any other: a device checks it in the same way.  What is longer
    valid can be held back longer, so choose no more days than the stick travels.

    Raises:
        InputError: `out` holds something, or `days` is not positive.

    """
    import shutil

    if days < 1:
        raise InputError(f"an export is valid for a day or more, not {days}")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder")
    with _alone(key_folder):
        channel = Channel(folder, key_folder)
        shutil.copytree(folder, out, dirs_exist_ok=True)
        copy = Channel(out, key_folder)
        copy.days["timestamp"] = copy.days["snapshot"] = days
        copy.save(set())
        # The channel counts up too: who takes the stick must not find the channel older.
        channel.save(set())


def releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {target: what is said of it}, from the metadata of a channel."""
    targets = _load(folder, "targets")
    return {
        name: {"digest": f"sha256:{target.hashes['sha256']}", **target.custom}
        for name, target in sorted(targets.signed.targets.items())
    }


def rotate(name: str, folder: Path, key_folder: Path) -> None:
    """Replace a key by a new one, signed for by the old root and the new one.

    The old key goes only when the root that names the new one stands.

    Raises:
        InputError: there is no such key, or fewer root keys are here than must sign.

    """
    if name not in keys.NAMES:
        raise InputError(f"no key is called {name!r}; there are {', '.join(keys.NAMES)}")
    with _alone(key_folder):
        channel = Channel(folder, key_folder)
        channel.rotate(name)


class Channel:
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
        self.days = dict(_DAYS)
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
        self.root = _load(self._folder, "root")
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

        found = _load(self._folder, role)
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
        """Replace a key; see `rotate` above."""
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
            _write(self._folder / METADATA / path, content)
        _write(self._keys / _TRUSTED, content)

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
        _write(self._folder / METADATA / f"{prefix}{role}.json", metadata.to_bytes())


def _role(name: str) -> str:
    return name.partition("-")[0]


@contextmanager
def _alone(key_folder: Path) -> Iterator[None]:
    """Let one command at a time sign with these keys."""
    import fcntl

    if not key_folder.is_dir():
        raise InputError(f"no keys at {key_folder}; edgepack keys init makes them")
    with (key_folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(folder: Path, role: str) -> Metadata[Any]:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    paths = list((folder / METADATA).glob(f"*{role}.json"))
    if not paths:
        raise InputError(f"no channel at {folder}: {METADATA}/{role}.json is missing")
    newest = max(
        paths, key=lambda path: int(path.name.partition(".")[0]) if path.name[0].isdigit() else -1
    )
    try:
        return Metadata.from_bytes(newest.read_bytes())
    except RepositoryError as exc:
        raise InputError(f"{newest} is damaged: {exc}") from exc


def _target(bundle: Bundle, name: str, rollout: Rollout) -> TargetFile:
    from tuf.api.metadata import TargetFile

    manifest = bundle.manifest
    digest = bundle.digest.removeprefix("sha256:")
    custom = {
        "release": manifest.release, "version": manifest.version, "arch": manifest.arch,
        "percent": rollout.percent, "cohorts": list(rollout.cohorts),
    }  # fmt: skip
    return TargetFile(bundle.blobs()[digest], {"sha256": digest}, name, {"custom": custom})


def _deltas(known: TargetFile, new: Bundle, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the deltas between the files of two releases that have the same path.

    None if the older one cannot be read any more: deltas only save bytes.
    """
    try:
        old = Bundle(folder, BlobLayout(Disk(folder), known.hashes["sha256"], known.length))
        old.verify()
    except (TrustError, OSError):
        return
    before = {entry.path: entry.sha256 for entry in old.manifest.files}
    done: set[tuple[str, str]] = set()
    with TemporaryDirectory() as work:
        for part, bundle in (("old", old), ("new", new)):
            for entry in bundle.manifest.files:
                path = Path(work, part, entry.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bundle.read(entry.path))
        for entry in new.manifest.files:
            base = before.get(entry.path, entry.sha256)
            if base == entry.sha256 or entry.size < _WORTH or (base, entry.sha256) in done:
                continue
            done.add((base, entry.sha256))
            content = encode(Path(work, "old", entry.path), Path(work, "new", entry.path))
            if len(content) > _MOST_SHARE * entry.size:
                continue
            digest = hashlib.sha256(content).hexdigest()
            _write(folder / BLOBS / digest, content)
            yield {"base": base, "blob": entry.sha256, "sha256": digest, "size": len(content)}


def _is_new(bundle: Bundle, known: TargetFile, wanted: TargetFile, *, behind: bool) -> bool:
    """Tell whether this is another release than the one that is known, and may follow it."""
    release = bundle.manifest.release
    if known.hashes == wanted.hashes:
        said = {key: value for key, value in known.custom.items() if key != "deltas"}
        if said == wanted.custom and not behind:
            raise NothingToDoError(f"the channel has this release {release} already")
        return False
    if release <= known.custom["release"]:
        raise InputError(
            f"the channel has release {known.custom['release']}, this is {release}: devices take "
            "no older or equal one; raise model.release in the recipe"
        )
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, and durably: what the timestamp names must be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.part")
    with work.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    work.replace(path)
