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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgepack import keys
from edgepack.delta import encode
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.errors import InputError, NothingToDoError
from edgepack_runtime.store import BlobLayout
from edgepack_runtime.store.storage import Disk

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Metadata, TargetFile

METADATA, BLOBS = "metadata", "blobs"
_WORTH = 4096  # bytes of a file that a delta is made for
_MOST_SHARE = 0.7  # of the whole: a larger delta is not worth its risk
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
    channel = Channel(folder, key_folder)
    manifest = bundle.manifest
    name = f"{manifest.name}/{manifest.target}"
    wanted = _target(bundle, name, rollout)
    known = channel.targets.signed.targets.get(name)
    if known is not None:
        _check_newer(bundle, known, wanted)
    bundle.verify()
    for digest in bundle.blobs():
        _write(folder / BLOBS / digest, bytes(bundle.blob(digest)))
    if known is not None:
        wanted.custom["deltas"] = list(_deltas(_released(folder, known), bundle, folder))
    channel.targets.signed.targets[name] = wanted
    channel.save({"targets"})
    return name


def retire(name: str, folder: Path, key_folder: Path) -> None:
    """Take a target out of a channel: devices keep what they run."""
    channel = Channel(folder, key_folder)
    if channel.targets.signed.targets.pop(name, None) is None:
        raise InputError(f"{folder} has no release {name!r}; it has {', '.join(releases(folder))}")
    channel.save({"targets"})


def refresh(folder: Path, key_folder: Path) -> None:
    """Sign timestamp and snapshot again, before they expire."""
    Channel(folder, key_folder).save(set())


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
    Channel(folder, key_folder)  # that it is one, and that its keys are here
    shutil.copytree(folder, out, dirs_exist_ok=True)
    copy = Channel(out, key_folder)
    copy.days["timestamp"] = copy.days["snapshot"] = days
    copy.save(set())
    # The channel counts up too: who takes the stick must not find the channel older.
    Channel(folder, key_folder).save(set())


def releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {target: what is said of it}, from the metadata of a channel."""
    targets = _load(folder, "targets")
    return {
        name: {"digest": f"sha256:{target.hashes['sha256']}", **target.custom}
        for name, target in sorted(targets.signed.targets.items())
    }


def rotate(name: str, folder: Path, key_folder: Path) -> None:
    """Replace a key by a new one, signed for by the old root and the new one."""
    if name not in keys.NAMES:
        raise InputError(f"no key is called {name!r}; there are {', '.join(keys.NAMES)}")
    channel = Channel(folder, key_folder)
    old = [
        keys.signer(key_folder, root)
        for root in keys.ROOTS
        if (key_folder / f"{root}.pem").exists()
    ]
    role = name.partition("-")[0]
    channel.root.signed.revoke_key(keys.signer(key_folder, name).public_key.keyid, role)
    keys.make(key_folder, name)
    channel.root.signed.add_key(keys.signer(key_folder, name).public_key, role)
    channel.sign_root(old)
    channel.save({role} if role in ("targets", "snapshot", "timestamp") else set())


class Channel:
    """The metadata of a channel, loaded or new, and the keys to sign it with.

    Attributes:
        days: how long what is signed is valid, by role.

    """

    def __init__(self, folder: Path, key_folder: Path) -> None:
        from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

        self._folder = folder
        self._keys = key_folder
        self._now = datetime.now(UTC).replace(microsecond=0)
        self.days = dict(_DAYS)
        if (folder / METADATA / "root.json").is_file():
            self.root, self.targets, self.snapshot, self.timestamp = (
                _load(folder, role) for role in ("root", "targets", "snapshot", "timestamp")
            )
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds files and no channel; choose an empty folder")
        self.root = Metadata(Root(consistent_snapshot=True))
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot(meta={"targets.json": MetaFile(version=1)}))
        self.timestamp = Metadata(Timestamp(snapshot_meta=MetaFile(version=1)))
        for metadata in (self.root, self.targets, self.snapshot, self.timestamp):
            metadata.signed.version = 0  # signing counts it up
        for name in keys.NAMES:
            role = name.partition("-")[0]
            self.root.signed.add_key(keys.signer(key_folder, name).public_key, role)
        self.root.signed.roles["root"].threshold = keys.ROOT_THRESHOLD
        self.sign_root()
        self.save({"targets"})

    def sign_root(self, also: Iterable[Signer] = ()) -> None:
        """Write the next root, signed by the present root keys and some others."""
        root = self.root.signed
        root.version += 1
        root.expires = self._now + timedelta(days=self.days["root"])
        present = [keys.signer(self._keys, name) for name in keys.present(self._keys, keys.ROOTS)]
        signers = {s.public_key.keyid: s for s in [*also, *present]}
        if len(present) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        self.root.signatures.clear()
        for signer in signers.values():
            self.root.sign(signer, append=True)
        for path in (f"{root.version}.root.json", "root.json"):
            _write(self._folder / METADATA / path, self.root.to_bytes())

    def save(self, changed: set[str]) -> None:
        """Sign and write what changed, then snapshot, then timestamp."""
        if "targets" in changed:
            self._sign(self.targets, "targets")
            self.snapshot.signed.meta["targets.json"].version = self.targets.signed.version
        self._sign(self.snapshot, "snapshot")
        self.timestamp.signed.snapshot_meta.version = self.snapshot.signed.version
        self._sign(self.timestamp, "timestamp")

    def _sign(self, metadata: Metadata[Any], role: str) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._now + timedelta(days=self.days[role])
        metadata.sign(keys.signer(self._keys, role))
        prefix = "" if role == "timestamp" else f"{metadata.signed.version}."
        _write(self._folder / METADATA / f"{prefix}{role}.json", metadata.to_bytes())


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


def _released(folder: Path, known: TargetFile) -> Bundle:
    """Open a release that a channel has."""
    layout = BlobLayout(Disk(folder), known.hashes["sha256"], known.length)
    return Bundle(folder, layout)


def _deltas(old: Bundle, new: Bundle, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the deltas between the files of two releases that have the same path."""
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


def _check_newer(bundle: Bundle, known: TargetFile, wanted: TargetFile) -> None:
    release = bundle.manifest.release
    same = known.hashes == wanted.hashes
    said = {key: value for key, value in known.custom.items() if key != "deltas"}
    if same and said == wanted.custom:
        raise NothingToDoError(f"the channel has this release {release} already")
    if not same and release <= known.custom["release"]:
        raise InputError(
            f"the channel has release {known.custom['release']}, this is {release}: devices take "
            "no older or equal one; raise model.release in the recipe"
        )


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, and durably: what the timestamp names must be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.part")
    with work.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    work.replace(path)
