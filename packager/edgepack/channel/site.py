"""Where a channel is: a folder, or a URL of a web server or bucket, with the same interface.

When `write` returns, the file is whole and durable, so writing in the right order is safe on both.
A URL goes through fsspec: `http` and `https` by GET and PUT (WebDAV, artifact stores), and `s3`,
`gs`, `abfs`, `sftp` and others by a package, which fsspec names if it is missing.  Folders are
never listed, because a web server cannot list them.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack.channel.durable import read_plain, write
from edgepack.channel.metadata import METADATA
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import EdgepackError, HostError, InputError, LinkError, TrustError
from edgepack_runtime.store.layout import BLOBS, BlobLayout
from edgepack_runtime.store.storage import Disk

_MOST_VERSIONS = 256  # of a role that are fetched one after the other; devices have the same limit
_IN_PLACE = {"file", "local", "sftp", "ssh"}


class Site:
    """A channel in a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, content: bytes) -> None:
        """Write a file whole and durably, because what the timestamp names must be there."""
        write(self.folder / path, content)

    def create(self, path: str, content: bytes) -> None:
        """Write a file under a new name; an `EdgepackError` if another machine took the name."""
        if self.current(path) is not None:
            raise _taken(f"{self.folder}/{path}")
        self.write(path, content)

    def replace(self, path: str, content: bytes, before: bytes | None) -> None:
        """Write a file whose content was `before`; an `EdgepackError` if it was changed since."""
        if self.current(path) != before:
            raise _taken(f"{self.folder}/{path}")
        self.write(path, content)

    def current(self, path: str) -> bytes | None:
        """Return the current bytes of a file; None if it is not there."""
        with suppress(FileNotFoundError):
            return read_plain(self.folder / path)
        return None

    def bring(self, path: str) -> None:
        """Fetch a file to the folder, if the site has it and the folder does not."""

    def blob(self, sha256: str) -> bytes:
        """Return a blob, hashed; a `TrustError` if it is missing or damaged."""
        try:
            content = read_plain(self.folder / BLOBS / sha256)
        except FileNotFoundError as exc:
            raise TrustError(f"{self.folder} lacks {BLOBS}/{sha256}") from exc
        if hashlib.sha256(content).hexdigest() != sha256:
            raise TrustError(f"{self.folder}/{BLOBS}/{sha256} is damaged")
        return content

    def release(self, sha256: str) -> Bundle:
        """Open a release by its OCI manifest; a `TrustError` if the manifest is not there."""
        return Bundle(self.folder, self.layout(sha256))

    def layout(self, sha256: str) -> BlobLayout:
        """Return the OCI layout of a release; a `TrustError` if its manifest is not there."""
        return BlobLayout(self._storage(), sha256, len(self.blob(sha256)))

    def _storage(self) -> Disk:
        return _Blobs(self)


class UrlSite(Site):
    """A channel behind a URL: metadata is fetched to a folder at once, blobs when they are read.

    Raises:
        InputError: there is no such protocol.
        HostError: the package for the protocol is not installed.
        LinkError: the server does not answer, or refuses.

    """

    def __init__(self, url: str, folder: Path) -> None:
        from fsspec.core import url_to_fs

        super().__init__(folder)
        self._url = url
        try:
            self._there, self._root = url_to_fs(
                url.rstrip("/"), use_listings_cache=False, skip_instance_cache=True
            )
        except ImportError as exc:
            raise HostError(f"{url}: {exc}") from exc
        except ValueError as exc:
            raise InputError(f"{url}: {exc}") from exc
        except Exception as exc:  # some kinds of store connect immediately
            raise LinkError(f"{url}: {exc}") from exc
        self._bring_metadata()

    def write(self, path: str, content: bytes) -> None:
        """Upload a file; a blob only if it is not there yet."""
        full = f"{self._root}/{path}"
        if not (path.startswith(f"{BLOBS}/") and self._size(full) == len(content)):
            self._put(full, content)
        super().write(path, content)

    def create(self, path: str, content: bytes) -> None:
        """Upload a file under a new name, and check it is ours: not every server refuses."""
        full, failure = f"{self._root}/{path}", None
        if self.current(path) is not None:
            raise _taken(f"{self._url}/{path}")
        try:
            self._put(full, content, new=True)
        except LinkError as exc:
            failure = exc
        if self.current(path) not in (None, content):
            raise _taken(f"{self._url}/{path}") from failure
        if failure:
            raise failure
        super().write(path, content)

    def current(self, path: str) -> bytes | None:
        """Return the current bytes of a file; None if it is not there."""
        with suppress(FileNotFoundError):
            return bytes(self._ask(self._there.cat_file, f"{self._root}/{path}"))
        return None

    def bring(self, path: str) -> None:
        """Fetch a file to the folder, if the site has it and the folder does not."""
        if not (self.folder / path).is_file():
            self._bring(path.removeprefix(f"{METADATA}/"))

    def blob(self, sha256: str) -> bytes:
        """Return a blob, hashed; fetch it if necessary."""
        path = f"{BLOBS}/{sha256}"
        if not (self.folder / path).is_file() and (content := self.current(path)) is not None:
            write(self.folder / path, content)
        return super().blob(sha256)

    def _put(self, path: str, content: bytes, *, new: bool = False) -> None:
        """Upload a file; if it would be written in place, upload it under another name first.

        If `new`, the server is asked to refuse an existing name, if it can.
        """
        protocol = self._there.protocol
        kinds = {protocol} if isinstance(protocol, str) else set(protocol)
        if not kinds & _IN_PLACE:
            only: dict[str, Any] = {}
            if new:
                web = bool(kinds & {"http", "https"})
                only = {"headers": {"If-None-Match": "*"}} if web else {"mode": "create"}
            self._ask(partial(self._there.pipe_file, **only), path, content)
            return
        self._ask(partial(self._there.makedirs, exist_ok=True), path.rpartition("/")[0])
        self._ask(self._there.pipe_file, f"{path}.part", content)
        self._ask(self._there.mv, f"{path}.part", path)

    def _size(self, path: str) -> int:
        with suppress(FileNotFoundError):
            return int(self._ask(self._there.info, path)["size"] or -1)
        return -1

    def _bring_metadata(self) -> None:
        """Fetch every root, and the newest of the rest, named or not: a publish may be cut off."""
        self._bring_numbered("root", 1)
        if not self._bring("timestamp.json"):
            return
        snapshot = self._bring_numbered("snapshot", self._named("timestamp.json", "snapshot.json"))
        self._bring_numbered("targets", self._named(f"{snapshot}.snapshot.json", "targets.json"))

    def _named(self, name: str, other: str) -> int:
        """Return the version of `other` that the metadata `name` names."""
        try:
            version = self._signed(name)["meta"][other]["version"]
        except (KeyError, TypeError):
            version = None
        if type(version) is not int or version < 1:
            raise InputError(f"{self._url}/{METADATA}/{name} names no version of {other}")
        return version

    def _bring_numbered(self, role: str, version: int) -> int:
        """Fetch a version of a role's metadata and later ones; return the last version."""
        last = version + _MOST_VERSIONS
        while self._bring(name := f"{version}.{role}.json"):
            if version == last:
                raise InputError(
                    f"{self._url}/{METADATA} has more than {_MOST_VERSIONS} versions of {role}, "
                    "unlike any channel: check that this server hosts one"
                )
            if self._signed(name).get("version") != version:  # a server that answers everything
                raise InputError(f"{self._url}/{METADATA}/{name} is of a different version")
            version += 1
        return version - 1

    def _bring(self, name: str) -> bool:
        path = f"{METADATA}/{name}"
        content = self.current(path)
        if content is None:
            return False
        write(self.folder / path, content)
        return True

    def _signed(self, name: str) -> dict[str, Any]:
        """Return the signed part of metadata, unchecked, only to find what to fetch."""
        try:
            found: dict[str, Any] = json.loads((self.folder / METADATA / name).read_bytes())
            return dict(found["signed"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{self._url}/{METADATA}/{name} is not metadata") from exc

    def _ask(self, what: Callable[..., Any], path: str, *content: bytes | str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", ResourceWarning
                )  # aiohttp's warning about a large body
                return what(path, *content)
        except FileNotFoundError:
            raise
        except Exception as exc:  # each kind of store has its own errors
            said = str(exc) or type(exc).__name__
            raise LinkError(f"{self._url}: {path.removeprefix(self._root)}: {said}") from exc


class _Blobs(Disk):
    """The blobs of a site, laid out as in a store; missing ones are fetched first."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.folder)
        self._site = site

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return bytes of a blob; the whole blob is hashed."""
        content = self.map(path)[start:]
        return bytes(content if size < 0 else content[:size])

    def map(self, path: str) -> memoryview:
        """Return the bytes of a blob, hashed."""
        return memoryview(self._site.blob(path.removeprefix(f"{BLOBS}/")))


@contextmanager
def opened(where: str | Path) -> Iterator[Site]:
    """Open the channel at a folder or a URL; errors refer to `where`."""
    if "://" not in str(where):
        yield Site(Path(where))
        return
    with TemporaryDirectory() as name:
        try:
            yield UrlSite(str(where), Path(name))
        except EdgepackError as exc:
            said = str(exc).replace(name, str(where).rstrip("/"))
            raise type(exc)(shown(said)) from exc


def shown(text: str) -> str:
    """Return a text without the user names and passwords in its URLs."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def _taken(what: str) -> EdgepackError:
    return EdgepackError(
        f"{what} was written by another machine meanwhile, so the channel has its state; run the "
        "same command again, from one machine at a time"
    )
