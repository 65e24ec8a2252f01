"""Carry a channel, or one release of it, to devices without a network: on a stick, or in a file.

The copy is signed like the channel, so a device checks it in the same way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.bundle.pack import Member, write_archive
from edgepack.channel.durable import write
from edgepack.channel.keys import alone
from edgepack.channel.releases import Where, named
from edgepack.channel.repository import Repository
from edgepack.channel.site import Site, opened
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.store.layout import BLOBS

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile


@dataclass(frozen=True)
class Parcel:
    """The content of an exported file."""

    name: str
    """The release, as `NAME/BOARD`."""
    days: int = 90
    """How long it is valid."""
    light: bool = False
    """Only what differs from the release before it, and deltas: for devices that run that one."""


def export(where: Where, out: Path, key_folder: Path, days: int) -> datetime:
    """Copy a channel to a folder for a USB stick, with a timestamp that lasts `days`.

    The stick is a channel like any other: a device checks it in the same way.  A longer validity
    lets an attacker replay the stick for longer; choose only as many days as it is in transit.
    Returns when the first of its metadata expires.

    Raises:
        InputError: `out` is not empty, or `days` is not positive.

    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder")
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        files, expires = channel.copy(_positive(days))
        for path, content in files.items():
            write(out / path, content)
        # The channel's versions go up too: to a device with the copy, it must not look older.
        channel.save(set())
        for target in channel.targets.signed.targets.values():
            for sha256 in _all_blobs(site, target):
                write(out / BLOBS / sha256, site.blob(sha256))
    return expires


def export_file(parcel: Parcel, where: Where, out: Path, key_folder: Path) -> datetime:
    """Write one release with its signed metadata to one `.epk`, for any carrier.

    The file is a bundle for users without a channel.  For devices it is a channel of one release,
    which they check like any other.  The channel itself does not change.  Returns when the first of
    its metadata expires.

    Raises:
        InputError: the channel has no such release or no delta for it, or the days are not
            positive.
        TrustError: a blob of the channel is damaged.

    """
    with alone(key_folder), opened(where) as site:
        channel = Repository(site, key_folder)
        found = named(parcel.name, channel.targets.signed.targets, where)
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


def _light(site: Site, target: TargetFile, blobs: set[str]) -> set[str]:
    """Return the blobs for a device that runs the release before: deltas, and blobs without one."""
    deltas = _deltas_of(target)
    if not deltas:
        raise InputError(f"{target.path} has no deltas: export it without --light")
    before: set[str] = set()
    with suppress(TrustError, OSError):  # it is no longer in the channel
        before = _blobs_of(site, target.custom["previous"])
    return blobs - before - set(deltas.values()) | deltas.keys()


def _blobs_of(site: Site, sha256: str) -> set[str]:
    """Return the blobs of a release, including its OCI manifest."""
    return set(site.release(sha256).blobs())


def _all_blobs(site: Site, target: TargetFile) -> set[str]:
    """Return all blobs that devices may ask for: the release, its deltas, and the one before."""
    found = _blobs_of(site, target.hashes["sha256"]) | _deltas_of(target).keys()
    if before := target.custom.get("before"):
        found |= _blobs_of(site, before["sha256"])
    return found


def _deltas_of(target: TargetFile) -> dict[str, str]:
    """Return {delta: the blob that it makes}."""
    return {delta["sha256"]: delta["blob"] for delta in target.custom.get("deltas", [])}


def _positive(days: int) -> int:
    if days < 1:
        raise InputError(f"an export must be valid for at least one day, not {days}")
    return days
