"""A channel: signed releases as static files, for any web server or bucket.

    metadata/   TUF: root, timestamp, snapshot, targets (consistent snapshots)
    blobs/      every file of every release by its sha256

A target is called NAME/BOARD; its file is the release's OCI manifest, which lists all other blobs
by digest and size.  Blobs are written first and the timestamp last, each whole.  So a device that
reads while a release is published sees either the old release or the new one.

`where` is the folder or the URL of a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.channel import keys, metadata
from edgepack.channel.delta import between
from edgepack.channel.keys import alone
from edgepack.channel.repository import Repository
from edgepack.channel.site import Site, opened
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError, NothingToDoError, TrustError
from edgepack_runtime.store.layout import BLOBS

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

Where = str | Path
_OF_BEFORE = (
    "deltas",
    "previous",
    "before",
)  # the parts of an entry that depend on the release before it


@dataclass(frozen=True)
class Rollout:
    """Which devices take a release."""

    percent: int = 100
    """The share of devices that take it."""
    cohorts: tuple[str, ...] = ()
    """The groups of devices that take it; empty for all."""
    minimum: int = 0
    """The oldest release to which a device may roll back once it has seen this; 0 for any."""


def publish(bundle: Bundle, where: Where, key_folder: Path, rollout: Rollout) -> str:
    """Publish a bundle; return the name of its target.

    Raises:
        InputError: a key is missing, or the folder holds something else.
        NothingToDoError: the channel already has exactly this release.

    """
    if not 0 <= rollout.percent <= 100:
        raise InputError(f"a rollout must be from 0 to 100 percent, not {rollout.percent}")
    if not 0 <= rollout.minimum <= bundle.manifest.release:
        raise InputError(
            f"the minimum must be a release up to this one, {bundle.manifest.release}, not "
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
    """Remove a target from a channel; devices go on running what they have."""
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        if not channel.behind:  # otherwise an interrupted command may have removed it
            named(name, channel.targets.signed.targets, where)
        channel.targets.signed.targets.pop(name, None)
        channel.save({"targets"})


def refresh(where: Where, key_folder: Path) -> list[str]:
    """Renew expiring signatures; return what expires soon and needs a key that is not here."""
    with alone(key_folder), opened(where) as site:
        return Repository(site, key_folder).renew()


def named(name: str, targets: dict[str, TargetFile], where: Where) -> TargetFile:
    """Return a channel's entry for a release; an `InputError` if it has none of this name."""
    if name not in targets:
        raise InputError(f"{where} has no release {name!r}; it has {', '.join(sorted(targets))}")
    return targets[name]


def _is_for_all(target: TargetFile) -> bool:
    return bool(target.custom["percent"] == 100 and not target.custom["cohorts"])


def _is_below(before: dict[str, Any] | None, minimum: int) -> bool:
    return before is not None and before["release"] < minimum


def _for_the_rest(known: TargetFile) -> dict[str, Any]:
    """Return the release for devices outside a staged rollout: the last one that was for all."""
    if not _is_for_all(known):
        return {key: known.custom[key] for key in ("before",) if key in known.custom}
    said = {key: value for key, value in known.custom.items() if key not in _OF_BEFORE}
    return {"before": {**said, "sha256": known.hashes["sha256"], "size": known.length}}


def releases(where: Where) -> dict[str, dict[str, Any]]:
    """Return {target: its entry} from the metadata of a channel, without checking who signed it.

    Raises:
        InputError: there is none, or an entry is malformed.

    """
    with opened(where) as site:
        return metadata.releases(site.folder)


def rotate(name: str, where: Where, key_folder: Path) -> None:
    """Replace a key with a new one; the old root and the new root sign for it.

    The old key is removed only when the root that names the new one is in place.

    Raises:
        InputError: there is no such key, or there are not enough root keys here to sign.

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
        "release": manifest.release,
        "version": manifest.version,
        "arch": manifest.arch,
        "percent": rollout.percent,
        "cohorts": list(rollout.cohorts),
        "minimum": rollout.minimum,
    }
    return TargetFile(bundle.blobs()[digest], {"sha256": digest}, name, {"custom": custom})


def _deltas(known: TargetFile, new: Bundle, site: Site) -> list[dict[str, Any]]:
    """Write the deltas from the channel's release to a new one; return their entries.

    The result is empty if the older one can no longer be read: deltas only save bytes.
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
    """Tell whether this release differs from the channel's and may follow it."""
    release = bundle.manifest.release
    if known.hashes == wanted.hashes:
        said = {key: value for key, value in known.custom.items() if key not in _OF_BEFORE}
        if said == wanted.custom and not behind:
            raise NothingToDoError(f"the channel has this release {release} already")
        return False
    if release <= known.custom["release"]:
        raise InputError(
            f"the channel has release {known.custom['release']}, this is {release}: devices do not "
            "take an older or equal one; raise model.release in the recipe"
        )
    return True
