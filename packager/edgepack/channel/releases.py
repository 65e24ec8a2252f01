"""A channel: static files, signed releases that any web server or bucket serves.

    metadata/   TUF: root, timestamp, snapshot, targets (consistent snapshots)
    blobs/      every file of every release by its sha256

A target is called NAME/BOARD; its file is the release's OCI manifest, from which all other blobs
follow by digest and size.  Blobs are written first and the timestamp last, each whole, so that a
device that reads while a release is published sees the old one or the new one.

`where` is the folder or the URL of a channel.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.bundle.pack import Member, write_archive
from edgepack.channel import keys, metadata
from edgepack.channel.delta import between
from edgepack.channel.durable import write
from edgepack.channel.keys import alone
from edgepack.channel.repository import Repository
from edgepack.channel.site import Site, opened
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError, NothingToDoError, TrustError
from edgepack_runtime.store.layout import BLOBS

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

Where = str | Path
_OF_BEFORE = ("deltas", "previous", "before")  # what is said of a release by the one before it


@dataclass(frozen=True)
class Rollout:
    """Who takes a release: a share of devices in percent, and cohorts; none named: all of them.

    minimum: the release below which no device goes back once it has seen this; 0 for none.
    """

    percent: int = 100
    cohorts: tuple[str, ...] = ()
    minimum: int = 0


@dataclass(frozen=True)
class Parcel:
    """What an exported file holds.

    name: of the release, `NAME/BOARD`; days: how long it is valid; light: what differs from the
    release before and deltas, for devices that run that one.
    """

    name: str
    days: int = 90
    light: bool = False


def publish(bundle: Bundle, where: Where, key_folder: Path, rollout: Rollout) -> str:
    """Publish a bundle; return the name of its target.

    Raises:
        InputError: a key is missing, or the folder holds something else.
        NothingToDoError: this very release is what the channel has.

    """
    if not 0 <= rollout.percent <= 100:
        raise InputError(f"a rollout is 0 to 100 percent, not {rollout.percent}")
    if not 0 <= rollout.minimum <= bundle.manifest.release:
        raise InputError(
            f"the minimum is a release up to this one, {bundle.manifest.release}, not "
            f"{rollout.minimum}"
        )
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder, create=True)
        manifest = bundle.manifest
        name = f"{manifest.name}/{manifest.target}"
        wanted = _target(bundle, name, rollout)
        known = channel.targets.signed.targets.get(name)
        if known is not None and _is_new(bundle, known, wanted, behind=channel.behind):
            wanted.custom["deltas"] = _deltas(known, bundle, site)
            wanted.custom["previous"] = known.hashes["sha256"]
            wanted.custom.update(_for_the_rest(known))
        elif known is not None:
            kept = {key: known.custom[key] for key in _OF_BEFORE if key in known.custom}
            wanted.custom.update(kept)
        if _is_for_all(wanted) or _is_below(wanted.custom.get("before"), rollout.minimum):
            wanted.custom.pop("before", None)
        bundle.verify()
        for digest in bundle.blobs():
            site.write(f"{BLOBS}/{digest}", bytes(bundle.blob(digest)))
        channel.targets.signed.targets[name] = wanted
        channel.save({"targets"})
    return name


def retire(name: str, where: Where, key_folder: Path) -> None:
    """Take a target out of a channel: devices keep what they run."""
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        if not channel.behind:  # else an interrupted command has taken it out
            _named(name, channel.targets.signed.targets, where)
        channel.targets.signed.targets.pop(name, None)
        channel.save({"targets"})


def refresh(where: Where, key_folder: Path) -> list[str]:
    """Sign anew what expires; return what runs out soon and needs a key that is not here."""
    with alone(key_folder), opened(where) as site:
        return Repository(site, key_folder).renew()


def export(where: Where, out: Path, key_folder: Path, days: int) -> datetime:
    """Copy a channel to a folder for a USB stick, its timestamp good for `days`.

    The stick is a channel like any other: a device checks it in the same way.  What is longer
    valid can be held back longer, so choose no more days than the stick travels.  Return when
    the first of its metadata runs out.

    Raises:
        InputError: `out` holds something, or `days` is not positive.

    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder")
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        files, expires = channel.copy(_positive(days))
        for path, content in files.items():
            write(out / path, content)
        # The channel counts up too: who takes the copy must not find the channel older.
        channel.save(set())
        for target in channel.targets.signed.targets.values():
            for sha256 in _all_blobs(site, target):
                write(out / BLOBS / sha256, site.blob(sha256))
    return expires


def export_file(parcel: Parcel, where: Where, out: Path, key_folder: Path) -> datetime:
    """Write one release with the metadata that signs it into one `.epk`, for any carrier.

    It is a bundle for who has no channel and a channel of one release for devices, which check
    it like any other.  The channel stays as it is.  Return when the first of it runs out.

    Raises:
        InputError: the channel has no such release, no delta of it, or the days are not positive.
        TrustError: a blob of the channel is damaged.

    """
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        found = _named(parcel.name, channel.targets.signed.targets, where)
        files, expires = channel.copy(_positive(parcel.days))
        carried = _blobs_of(site, found.hashes["sha256"])
        if parcel.light:
            carried = _light(site, found, carried)
        layout = site.layout(found.hashes["sha256"])
        members: dict[str, Member] = {
            top: bytes(layout.member(top)) for top in ("oci-layout", "index.json")
        }
        members |= files
        members |= {f"{BLOBS}/sha256/{sha256}": site.blob(sha256) for sha256 in sorted(carried)}
        write_archive(members, out)
    return expires


def _named(name: str, targets: dict[str, TargetFile], where: Where) -> TargetFile:
    if name not in targets:
        raise InputError(f"{where} has no release {name!r}; it has {', '.join(sorted(targets))}")
    return targets[name]


def _light(site: Site, target: TargetFile, blobs: set[str]) -> set[str]:
    """Return what a device lacks that runs the release before: deltas, and what has none."""
    deltas = _deltas_of(target)
    if not deltas:
        raise InputError(f"{target.path} has no deltas: export it without --light")
    before: set[str] = set()
    with suppress(TrustError, OSError):  # the channel has it no more
        before = _blobs_of(site, target.custom["previous"])
    return blobs - before - set(deltas.values()) | deltas.keys()


def _blobs_of(site: Site, sha256: str) -> set[str]:
    """Return the blobs of a release, its OCI manifest and itself included."""
    return set(site.release(sha256).blobs())


def _all_blobs(site: Site, target: TargetFile) -> set[str]:
    """Return what devices may ask for: of the release, its deltas, and the one for the rest."""
    found = _blobs_of(site, target.hashes["sha256"]) | _deltas_of(target).keys()
    if before := target.custom.get("before"):
        found |= _blobs_of(site, before["sha256"])
    return found


def _is_for_all(target: TargetFile) -> bool:
    return bool(target.custom["percent"] == 100 and not target.custom["cohorts"])


def _is_below(before: dict[str, Any] | None, minimum: int) -> bool:
    return before is not None and before["release"] < minimum


def _for_the_rest(known: TargetFile) -> dict[str, Any]:
    """Return the release for devices that a staged one is not for: the last that was for all."""
    if not _is_for_all(known):
        return {key: known.custom[key] for key in ("before",) if key in known.custom}
    said = {key: value for key, value in known.custom.items() if key not in _OF_BEFORE}
    return {"before": {**said, "sha256": known.hashes["sha256"], "size": known.length}}


def _deltas_of(target: TargetFile) -> dict[str, str]:
    """Return {delta: the blob that it makes}."""
    return {delta["sha256"]: delta["blob"] for delta in target.custom.get("deltas", [])}


def _positive(days: int) -> int:
    if days < 1:
        raise InputError(f"an export is valid for a day or more, not {days}")
    return days


def releases(where: Where) -> dict[str, dict[str, Any]]:
    """Return {target: what is said of it}, from the metadata of a channel, whoever signed it.

    Raises:
        InputError: there is none, or it does not say what a release is.

    """
    with opened(where) as site:
        return metadata.releases(site.folder)


def rotate(name: str, where: Where, key_folder: Path) -> None:
    """Replace a key by a new one, signed for by the old root and the new one.

    The old key goes only when the root that names the new one stands.

    Raises:
        InputError: there is no such key, or fewer root keys are here than must sign.

    """
    if name not in keys.NAMES:
        raise InputError(f"no key is called {name!r}; there are {', '.join(keys.NAMES)}")
    with alone(key_folder), opened(where) as site:
        Repository(site, key_folder).rotate(name)


def _target(bundle: Bundle, name: str, rollout: Rollout) -> TargetFile:
    from tuf.api.metadata import TargetFile

    manifest = bundle.manifest
    digest = bundle.digest.removeprefix("sha256:")
    custom = {
        "release": manifest.release, "version": manifest.version, "arch": manifest.arch,
        "percent": rollout.percent, "cohorts": list(rollout.cohorts), "minimum": rollout.minimum,
    }  # fmt: skip
    return TargetFile(bundle.blobs()[digest], {"sha256": digest}, name, {"custom": custom})


def _deltas(known: TargetFile, new: Bundle, site: Site) -> list[dict[str, Any]]:
    """Write the deltas from the release that is known to a new one; return what is said of them.

    None if the older one cannot be read any more: deltas only save bytes.
    """
    try:
        old = site.release(known.hashes["sha256"])
        old.verify()
    except (TrustError, OSError):
        return []
    found = []
    for delta in between(old, new):
        site.write(f"{BLOBS}/{delta.sha256}", delta.content)
        found.append(delta.as_json())
    return found


def _is_new(bundle: Bundle, known: TargetFile, wanted: TargetFile, *, behind: bool) -> bool:
    """Tell whether this is another release than the one that is known, and may follow it."""
    release = bundle.manifest.release
    if known.hashes == wanted.hashes:
        said = {key: value for key, value in known.custom.items() if key not in _OF_BEFORE}
        if said == wanted.custom and not behind:
            raise NothingToDoError(f"the channel has this release {release} already")
        return False
    if release <= known.custom["release"]:
        raise InputError(
            f"the channel has release {known.custom['release']}, this is {release}: devices take "
            "no older or equal one; raise model.release in the recipe"
        )
    return True
