"""Where a channel lies: a folder, or a URL of a web server or a bucket, read and written alike.

What is written is there, whole and durable, when `write` returns, so that whoever writes in the
right order is safe on both.  A URL goes through fsspec: `http` and `https` by GET and PUT (WebDAV,
artifact stores), `s3`, `gs`, `abfs`, `sftp` and others by the package that it names when it is
missing.  No folder is ever listed, as a web server has no way to.
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

_MOST_VERSIONS = 256  # of a role that are asked for one after the other; devices stop there too
_IN_PLACE = {"file", "local", "sftp", "ssh"}


class Site:
    """A channel in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, content: bytes) -> None:
        """Write a file whole, and durably: what the timestamp names must be there."""
        write(self.folder / path, content)

    def create(self, path: str, content: bytes) -> None:
        """Write a file whose name is new; an `EdgepackError` if another machine took it."""
        if self.current(path) is not None:
            raise _taken(f"{self.folder}/{path}")
        self.write(path, content)

    def replace(self, path: str, content: bytes, before: bytes | None) -> None:
        """Write a file that was `before`; an `EdgepackError` if another machine changed it."""
        if self.current(path) != before:
            raise _taken(f"{self.folder}/{path}")
        self.write(path, content)

    def current(self, path: str) -> bytes | None:
        """Return the bytes of a file as it is there now, None if it is not."""
        with suppress(FileNotFoundError):
            return read_plain(self.folder / path)
        return None

    def bring(self, path: str) -> None:
        """Bring a file to the folder, if it is there and is not here."""

    def blob(self, sha256: str) -> bytes:
        """Return a blob, hashed; a `TrustError` if it is not there or damaged."""
        try:
            content = read_plain(self.folder / BLOBS / sha256)
        except FileNotFoundError as exc:
            raise TrustError(f"{self.folder} lacks {BLOBS}/{sha256}") from exc
        if hashlib.sha256(content).hexdigest() != sha256:
            raise TrustError(f"{self.folder}/{BLOBS}/{sha256} is damaged")
        return content

    def release(self, sha256: str) -> Bundle:
        """Open a release by its OCI manifest; a `TrustError` if that is not there."""
        return Bundle(self.folder, self.layout(sha256))

    def layout(self, sha256: str) -> BlobLayout:
        """Return the OCI layout of a release; a `TrustError` if its manifest is not there."""
        return BlobLayout(self._storage(), sha256, len(self.blob(sha256)))

    def _storage(self) -> Disk:
        return _Blobs(self)


class UrlSite(Site):
    """A channel behind a URL: its metadata is brought to a folder at once, a blob when it is read.

    Raises:
        InputError: there is no such protocol.
        HostError: the package that speaks it is not installed.
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
        except Exception as exc:  # some kinds of store connect at once
            raise LinkError(f"{url}: {exc}") from exc
        self._bring_metadata()

    def write(self, path: str, content: bytes) -> None:
        """Upload a file, a blob only if it is not there yet."""
        full = f"{self._root}/{path}"
        if not (path.startswith(f"{BLOBS}/") and self._size(full) == len(content)):
            self._put(full, content)
        super().write(path, content)

    def create(self, path: str, content: bytes) -> None:
        """Upload a file whose name is new, and see that it is ours: not every server refuses."""
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
        """Return the bytes of a file as it is there now, None if it is not."""
        with suppress(FileNotFoundError):
            return bytes(self._ask(self._there.cat_file, f"{self._root}/{path}"))
        return None

    def bring(self, path: str) -> None:
        """Bring a file to the folder, if it is there and is not here."""
        if not (self.folder / path).is_file():
            self._bring(path.removeprefix(f"{METADATA}/"))

    def blob(self, sha256: str) -> bytes:
        """Return a blob, fetched if it was not before, and hashed."""
        path = f"{BLOBS}/{sha256}"
        if not (self.folder / path).is_file() and (content := self.current(path)) is not None:
            write(self.folder / path, content)
        return super().blob(sha256)

    def _put(self, path: str, content: bytes, *, new: bool = False) -> None:
        """Upload a file; where it would be written in place, under another name first.

        new: the server is asked to refuse what is there already, where it knows how to.
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
        """Bring every root, and of the rest the newest, named or not: a publish may be cut off."""
        self._bring_numbered("root", 1)
        if not self._bring("timestamp.json"):
            return
        snapshot = self._bring_numbered("snapshot", self._named("timestamp.json", "snapshot.json"))
        self._bring_numbered("targets", self._named(f"{snapshot}.snapshot.json", "targets.json"))

    def _named(self, name: str, other: str) -> int:
        """Return the version of other metadata that some metadata names."""
        try:
            version = self._signed(name)["meta"][other]["version"]
        except (KeyError, TypeError):
            version = None
        if type(version) is not int or version < 1:
            raise InputError(f"{self._url}/{METADATA}/{name} names no version of {other}")
        return version

    def _bring_numbered(self, role: str, version: int) -> int:
        """Bring a version of a role's metadata and those that follow; return the last one's."""
        last = version + _MOST_VERSIONS
        while self._bring(name := f"{version}.{role}.json"):
            if version == last:
                raise InputError(
                    f"{self._url}/{METADATA} has more than {_MOST_VERSIONS} versions of {role}, as "
                    "no channel has: is it the server of one?"
                )
            if self._signed(name).get("version") != version:  # a server that has an answer to all
                raise InputError(f"{self._url}/{METADATA}/{name} is of another version")
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
        """Return what metadata says, unchecked: only to find what to bring."""
        try:
            found: dict[str, Any] = json.loads((self.folder / METADATA / name).read_bytes())
            return dict(found["signed"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{self._url}/{METADATA}/{name} is no metadata") from exc

    def _ask(self, what: Callable[..., Any], path: str, *content: bytes | str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # aiohttp's, of a large body
                return what(path, *content)
        except FileNotFoundError:
            raise
        except Exception as exc:  # each kind of store has its own errors
            said = str(exc) or type(exc).__name__
            raise LinkError(f"{self._url}: {path.removeprefix(self._root)}: {said}") from exc


class _Blobs(Disk):
    """The blobs of a site as a store has them: plain files, fetched before where they are not."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.folder)
        self._site = site

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return bytes of a blob, which is hashed whole."""
        content = self.map(path)[start:]
        return bytes(content if size < 0 else content[:size])

    def map(self, path: str) -> memoryview:
        """Return the bytes of a blob, hashed."""
        return memoryview(self._site.blob(path.removeprefix(f"{BLOBS}/")))


@contextmanager
def opened(where: str | Path) -> Iterator[Site]:
    """Open the channel at a folder or a URL; errors speak of `where`."""
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
    """Return a text without the names and passwords in its URLs."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def _taken(what: str) -> EdgepackError:
    return EdgepackError(
        f"{what} was written by another machine meanwhile: the channel is the other's; run the "
        "same command again, from one machine at a time"
    )
