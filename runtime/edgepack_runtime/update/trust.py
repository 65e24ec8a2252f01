"""Which release a channel offers, by python-tuf's client and our own memory of versions.

The client starts from the shipped root every time and stores nothing, so it has no cache that
could be truncated or half-written.  What must be remembered, the lowest version of each role that
is still accepted, is in the store's record, which a power cut cannot take back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from edgepack_runtime.bundle.names import is_digest
from edgepack_runtime.errors import InputError, LinkError, NothingToDoError, TrustError
from edgepack_runtime.store.record import MINIMUM, RELEASE, ROOT, TIME, Record
from edgepack_runtime.update.source import Archive, MissingError, Source

_BASE = "channel:///metadata/"
_ROLES = ("timestamp", "snapshot", "targets")
_NOT_FOUND = 404
_DAY = 86400
_ANEW = (
    "If its owner started it again with new keys, give this device the new metadata/1.root.json "
    "(--root), by a way that you trust, and run edgepack-runtime retry --new-root"
)
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()  # the last day of `datetime`
Remember = Callable[[Mapping[str, int], str], object]


@dataclass(frozen=True)
class Delta:
    """A signed difference that makes one blob from another."""

    base: str
    """The sha256 of the blob it starts from."""
    blob: str
    """The sha256 of the blob it makes."""
    sha256: str
    """Digest of the delta's file."""
    size: int
    """Size of the delta's file in bytes."""


@dataclass(frozen=True)
class Offer:
    """A release that a channel offers to a device."""

    sha256: str
    """Digest of its OCI manifest."""
    size: int
    """Size of its OCI manifest in bytes."""
    release: int
    """Its counter."""
    version: str
    """The name its owner gave it."""
    percent: int
    """The share of devices that take it."""
    cohorts: tuple[str, ...]
    """The groups of devices that take it; empty for all."""
    deltas: tuple[Delta, ...] = ()
    """Differences that make its blobs."""
    minimum: int = 0
    """The oldest release this device may roll back to."""
    before: Offer | None = None
    """The last release for all devices; it is offered to those that this one is not for yet."""


def offered(source: Source, root: bytes, name: str, state: Record, remember: Remember) -> Offer:
    """Check a channel's metadata and return what it offers under a name.

    Args:
        source: the channel.
        root: the root metadata that was shipped with the device.
        name: `NAME/BOARD`.
        state: what the store remembers: the lowest accepted versions, and the root.
        remember: called with the versions that were seen and the root's digest, once they are
            trusted and before they are used.

    Raises:
        TrustError: a signature, a hash, an expiry or a version is wrong.
        LinkError: the link failed.
        NothingToDoError: the channel no longer has anything of that name.
        InputError: the channel never had it, as far as this device knows.

    """
    with TemporaryDirectory() as folder:
        try:
            client = Updater(folder, _BASE, fetcher=_Fetcher(source), bootstrap=root)
            now = min(max(time.time(), state.floors.get(TIME, 0)), _END_OF_TIME)
            # python-tuf takes no time from outside, and a device may have no clock of its own.
            client._trusted_set.reference_time = datetime.fromtimestamp(now, timezone.utc)  # noqa: SLF001
            client.refresh()
            seen = _versions(Path(folder))
            if isinstance(
                source, Archive
            ):  # its own snapshot and timestamp hold for this file only
                seen = {k: v for k, v in seen.items() if k == "root" or k.startswith("targets@")}
            else:
                # Rounded down to the day.  It is never later than the expiry of what was accepted
                # just now, so a clock that runs far ahead does not lock a device out.
                seen[TIME] = int(now) // _DAY * _DAY
            _check_root(Path(folder), state, Metadata.from_bytes(root).signed.version)
            _check_floors(state.floors, seen)
            target = client.get_targetinfo(name)
            if target is not None:  # under other keys its floors start over
                keys = next(role.partition("@")[2] for role in seen if role.startswith("targets@"))
                seen |= {f"{kind}{name}@{keys}": 0 for kind in (MINIMUM, RELEASE)}
            remember(seen, _root_digest(Path(folder), seen["root"]))
            there = sorted(client._trusted_set.targets.targets)  # noqa: SLF001 (no public way)
        except RepositoryError as exc:
            unknown = " 0/" in str(exc)  # not one of the keys that the root names has signed
            hint = f"; check that the device's root.json belongs to this channel. {_ANEW}"
            said = f"the channel's metadata is refused: {exc}"
            raise TrustError(said + hint if unknown else said) from exc
        except DownloadError as exc:
            raise LinkError(f"the channel's metadata does not arrive: {exc}") from exc
    if target is None:
        has = f"the channel has no release {name!r}; it has {', '.join(there) or 'none'}"
        # A name offered here before was removed from the channel; any other may be mistyped.
        raise (NothingToDoError if state.has_floor(f"{RELEASE}{name}") else InputError)(has)
    return _offer(target, name)


def _check_floors(floors: Mapping[str, int], seen: Mapping[str, int]) -> None:
    for role, least in floors.items():
        if role != TIME and seen.get(role, least) < least:
            raise TrustError(
                f"the channel shows version {seen[role]} of {role.partition('@')[0]}, but "
                f"{least} was seen before: the channel is outdated, or was reset"
            )


def _check_root(folder: Path, state: Record, shipped: int) -> None:
    """Check that the chain of roots passes through the one accepted before.

    The client starts from the shipped root, so keys that were replaced since then could sign
    another chain of roots.  Such a chain has a different root at the remembered version.  A root
    that was shipped later, with new firmware, is trusted in itself: the chain begins with it.
    """
    known = state.floors.get(ROOT, 0)
    if state.root and shipped <= known and _root_digest(folder, known) != state.root:
        raise TrustError(
            f"the channel lacks the root {known} that was accepted before: it is outdated, or was "
            f"forked with keys that may have been replaced. {_ANEW}"
        )


def _root_digest(folder: Path, version: int) -> str:
    """Return the sha256 of a root that the client accepted; empty if it saw none."""
    try:
        return hashlib.sha256(
            (folder / f"root_history/{version}.root.json").read_bytes()
        ).hexdigest()
    except OSError:
        return ""


def _offer(target: Any, name: str) -> Offer:
    try:
        before = target.custom.get("before")
        offer = _read_offer(target.hashes.get("sha256"), target.length, target.custom)
        if before is not None:
            rest = _read_offer(before["sha256"], before["size"], before)
            offer = replace(offer, before=rest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise TrustError(f"what the channel says of {name} is malformed: {exc}") from exc
    if offer.minimum > offer.release:
        raise TrustError(
            f"the channel offers release {offer.release} of {name} but forbids all below "
            f"{offer.minimum}"
        )
    return offer


def _read_offer(sha256: Any, size: Any, custom: Any) -> Offer:
    if not is_digest(str(sha256)):
        raise ValueError("the hash is not a sha256")
    return Offer(
        sha256=str(sha256),
        size=int(size),
        release=int(custom["release"]),
        version=str(custom["version"]),
        percent=int(custom["percent"]),
        cohorts=tuple(str(cohort) for cohort in custom["cohorts"]),
        deltas=tuple(
            Delta(str(d["base"]), str(d["blob"]), str(d["sha256"]), int(d["size"]))
            for d in custom.get("deltas", [])
        ),
        minimum=int(custom.get("minimum", 0)),
    )


def _versions(folder: Path) -> dict[str, int]:
    """Return the versions that the client accepted.

    A role's name includes its keys.  When the root gives it new keys, its versions start over, as
    described in TUF for the recovery from a fast-forward attack.  The root's versions never do.
    """
    root = Metadata.from_bytes((folder / "root.json").read_bytes()).signed
    found = {"root": int(root.version)}
    for role in _ROLES:
        path = folder / f"{role}.json"
        version = Metadata.from_bytes(path.read_bytes()).signed.version
        keys = ",".join(sorted(root.roles[role].keyids))
        found[f"{role}@{hashlib.sha256(keys.encode()).hexdigest()[:8]}"] = int(version)
    return found


class _Fetcher(FetcherInterface):
    """Allows the client to read metadata through a source, never more than it asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = f"metadata/{url.removeprefix(_BASE)}"
        try:
            yield from self._source.fetch(path)
        except MissingError as exc:
            raise DownloadHTTPError(str(exc), _NOT_FOUND) from exc
        except LinkError as exc:
            raise DownloadError(str(exc)) from exc
