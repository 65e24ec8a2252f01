"""Which release a channel offers, by python-tuf's client and our own memory of versions.

The client starts from the shipped root every time and keeps nothing: no cache of it can be
truncated or half-written.  What must be remembered, the least version of each role that is still
accepted, is in the store's record, which a power cut cannot take back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from edgepack_runtime.errors import LinkError, NothingToDoError, TrustError
from edgepack_runtime.update.source import MissingError, Source

_BASE = "channel:///metadata/"
_ROLES = ("timestamp", "snapshot", "targets")
_NOT_FOUND = 404


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
    floors: the versions to remember now that this was seen.  deltas: ways to make its blobs.
    """

    sha256: str
    size: int
    release: int
    version: str
    percent: int
    cohorts: tuple[str, ...]
    floors: Mapping[str, int]
    deltas: tuple[Delta, ...] = ()


def offered(source: Source, root: bytes, name: str, floors: Mapping[str, int]) -> Offer:
    """Check a channel's metadata and return what it offers under a name.

    Args:
        source: the channel.
        root: the root metadata that was shipped with the device.
        name: `NAME/BOARD`.
        floors: the least versions that are accepted, as the store remembers them.

    Raises:
        TrustError: a signature, a hash, an expiry or a version is wrong.
        LinkError: the link failed.
        NothingToDoError: the channel has nothing of that name.

    """
    with TemporaryDirectory() as folder:
        try:
            client = Updater(folder, _BASE, fetcher=_Fetcher(source), bootstrap=root)
            client.refresh()
            target = client.get_targetinfo(name)
        except RepositoryError as exc:
            raise TrustError(f"the channel's metadata is refused: {exc}") from exc
        except DownloadError as exc:
            raise LinkError(f"the channel's metadata does not come: {exc}") from exc
        seen = _versions(Path(folder))
    for role, least in floors.items():
        if seen.get(role, least) < least:
            raise TrustError(
                f"the channel shows version {seen[role]} of {role.partition('@')[0]}, and "
                f"{least} was seen before: it is older, or was put back"
            )
    if target is None:
        raise NothingToDoError(f"the channel has no release {name!r}")
    return _offer(target, seen, name)


def _offer(target: Any, seen: Mapping[str, int], name: str) -> Offer:
    try:
        custom = target.custom
        return Offer(
            sha256=str(target.hashes["sha256"]),
            size=int(target.length),
            release=int(custom["release"]),
            version=str(custom["version"]),
            percent=int(custom["percent"]),
            cohorts=tuple(str(cohort) for cohort in custom["cohorts"]),
            floors=seen,
            deltas=tuple(
                Delta(str(d["base"]), str(d["blob"]), str(d["sha256"]), int(d["size"]))
                for d in custom.get("deltas", [])
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise TrustError(f"what the channel says of {name} is malformed: {exc}") from exc


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
