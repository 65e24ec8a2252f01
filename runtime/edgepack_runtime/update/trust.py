"""Which release a channel offers, by python-tuf's client and our own memory of versions.

The client starts from the shipped root every time and keeps nothing: no cache of it can be
truncated or half-written.  What must be remembered, the least version of each role that is still
accepted, is in the store's record, which a power cut cannot take back.
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

from edgepack_runtime.bundle.manifest import is_digest
from edgepack_runtime.errors import InputError, LinkError, NothingToDoError, TrustError
from edgepack_runtime.store.record import MINIMUM, RELEASE, ROOT, TIME, Record
from edgepack_runtime.update.source import Archive, MissingError, Source

_BASE = "channel:///metadata/"
_ROLES = ("timestamp", "snapshot", "targets")
_NOT_FOUND = 404
_DAY = 86400
_ANEW = (
    "If its owner began it again with new keys, give this device the new metadata/1.root.json "
    "(--root), by a way that you trust, and say edgepack-runtime retry --new-root"
)
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()  # the last day of `datetime`
Remember = Callable[[Mapping[str, int], str], object]


@dataclass(frozen=True)
class Delta:
    """A signed way to make one blob of another: a file of `size` bytes with the digest `sha256`."""

    base: str
    blob: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Offer:
    """A release that a channel offers to a device.

    sha256, size: of its OCI manifest; release: its counter; percent and cohorts: who takes it.
    deltas: ways to make its blobs.  minimum: the release below which this device goes no more.
    before: the release for devices that this one is not for yet, the last that was for all.
    """

    sha256: str
    size: int
    release: int
    version: str
    percent: int
    cohorts: tuple[str, ...]
    deltas: tuple[Delta, ...] = ()
    minimum: int = 0
    before: Offer | None = None


def offered(source: Source, root: bytes, name: str, state: Record, remember: Remember) -> Offer:
    """Check a channel's metadata and return what it offers under a name.

    Args:
        source: the channel.
        root: the root metadata that was shipped with the device.
        name: `NAME/BOARD`.
        state: what the store remembers: the least versions that are accepted, and the root.
        remember: called with the versions and the root's digest that were seen, once they are
            trusted and before anything is made of them.

    Raises:
        TrustError: a signature, a hash, an expiry or a version is wrong.
        LinkError: the link failed.
        NothingToDoError: the channel has nothing of that name any more.
        InputError: it never had, as far as this device has seen.

    """
    with TemporaryDirectory() as folder:
        try:
            client = Updater(folder, _BASE, fetcher=_Fetcher(source), bootstrap=root)
            now = min(max(time.time(), state.floors.get(TIME, 0)), _END_OF_TIME)
            # python-tuf takes no time from outside, and a device may have no clock of its own.
            client._trusted_set.reference_time = datetime.fromtimestamp(now, timezone.utc)  # noqa: SLF001
            client.refresh()
            seen = _versions(Path(folder))
            if isinstance(source, Archive):  # its own snapshot and timestamp count for nobody else
                seen = {k: v for k, v in seen.items() if k == "root" or k.startswith("targets@")}
            else:
                # To the day, and never beyond the end of what was accepted just now, or it would
                # have expired: a clock that runs far ahead locks no device out.
                seen[TIME] = int(now) // _DAY * _DAY
            _check_root(Path(folder), state, Metadata.from_bytes(root).signed.version)
            _check_floors(state.floors, seen)
            target = client.get_targetinfo(name)
            if target is not None:  # what is known of it counts anew under other keys
                keys = next(role.partition("@")[2] for role in seen if role.startswith("targets@"))
                seen |= {f"{kind}{name}@{keys}": 0 for kind in (MINIMUM, RELEASE)}
            remember(seen, _root_digest(Path(folder), seen["root"]))
            there = sorted(client._trusted_set.targets.targets)  # noqa: SLF001 (no public way)
        except RepositoryError as exc:
            unknown = " 0/" in str(exc)  # none of the keys that the root names has signed
            hint = f"; the root that was given may not be of this channel. {_ANEW}"
            said = f"the channel's metadata is refused: {exc}"
            raise TrustError(said + hint if unknown else said) from exc
        except DownloadError as exc:
            raise LinkError(f"the channel's metadata does not come: {exc}") from exc
    if target is None:
        has = f"the channel has no release {name!r}; it has {', '.join(there) or 'none'}"
        # A name that was offered here before was taken out of the channel; else it may be mistyped.
        raise (NothingToDoError if state.has_floor(f"{RELEASE}{name}") else InputError)(has)
    return _offer(target, name)


def _check_floors(floors: Mapping[str, int], seen: Mapping[str, int]) -> None:
    for role, least in floors.items():
        if role != TIME and seen.get(role, least) < least:
            raise TrustError(
                f"the channel shows version {seen[role]} of {role.partition('@')[0]}, and "
                f"{least} was seen before: it is older, or was put back"
            )


def _check_root(folder: Path, state: Record, shipped: int) -> None:
    """See that the roots lead through the one that was accepted before.

    The client starts from the shipped root, so that keys which were replaced since could sign
    another line of roots; that line has another root of the version that is remembered.  A root
    that was shipped later, with a new firmware, is trusted for itself: the line begins with it.
    """
    known = state.floors.get(ROOT, 0)
    if state.root and shipped <= known and _root_digest(folder, known) != state.root:
        raise TrustError(
            f"the channel has not the root {known} that was accepted before: it is older, or was "
            f"forked, by keys that may have been replaced. {_ANEW}"
        )


def _root_digest(folder: Path, version: int) -> str:
    """Return the sha256 of a root that the client accepted on its way; empty if it saw none."""
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
            f"the channel offers release {offer.release} of {name} and forbids all below "
            f"{offer.minimum}"
        )
    return offer


def _read_offer(sha256: Any, size: Any, custom: Any) -> Offer:
    if not is_digest(str(sha256)):
        raise ValueError("the hash is no sha256")
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

    A role's name carries its keys: when the root gives it new ones, its versions count anew, as
    TUF has it for the recovery from a fast-forward attack.  The root's never do.
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
    """Lets the client read metadata through a source; it never takes more than it asked for."""

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
