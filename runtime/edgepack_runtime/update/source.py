"""Where a channel is read from: a web server, a folder (a USB stick), or one signed `.epk`."""

from __future__ import annotations

import json
import os
import stat
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from weakref import finalize

from edgepack_runtime.errors import InputError, LinkError, TrustError

_PIECE = 64 << 10
_AT_ONCE = (
    os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
)  # neither waits for a pipe nor follows a link


class MissingError(LinkError):
    """The channel has no such file."""


class Source(Protocol):
    """A static folder of files at some place; `str` names the place."""

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on.

        Raises:
            MissingError: there is no such file.
            LinkError: the link failed, or the server did not do what was asked.

        """


@dataclass(frozen=True)
class Link:
    """The limits of a link."""

    timeout: float = 20.0
    """The longest time to connect, and without a byte, in seconds."""
    least: int = 200
    """A server that is slower than this, in bytes a second, is given up."""
    window: float = 30.0
    """Seconds of waiting over which `least` is measured."""
    most: int = 0
    """Read at most this many bytes a second; 0 for no cap."""
    proxy: str = ""
    """An address; empty to use the environment's proxy."""


class Folder:
    """A channel in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a plain file from `start` on; a pipe would have no end."""
        try:
            with os.fdopen(os.open(self._root / path, _AT_ONCE), "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise LinkError(f"{self._root / path} is not a plain file")
                stream.seek(start)
                while piece := stream.read(_PIECE):
                    yield piece
        except FileNotFoundError as exc:
            raise MissingError(f"{self._root} has no {path}") from exc
        except OSError as exc:
            raise LinkError(f"cannot read {self._root / path}: {exc.strerror}") from exc


class Archive:
    """A channel of one release in a signed `.epk`, as `edgepack channel export --epk` writes it.

    It is read through one open file and never mapped.  So pulling the stick causes an error, not a
    signal, and a file that is swapped meanwhile is not read.
    """

    def __init__(self, path: Path) -> None:
        from edgepack_runtime.bundle.layout import scan

        self.path = path
        try:
            with path.open("rb") as stream:
                length = os.fstat(stream.fileno()).st_size
                self._spans = scan(path, length, stream)
                self._handle = os.dup(stream.fileno())
            finalize(self, os.close, self._handle)
        except OSError as exc:
            raise InputError(f"cannot read {path}: {exc.strerror}") from exc
        if "metadata/timestamp.json" not in self._spans:
            raise TrustError(
                f"{path} is not signed: it holds a bundle, but not a channel's metadata; "
                "edgepack channel export --epk writes a signed one"
            )

    def __str__(self) -> str:
        return str(self.path)

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a member from `start` on."""
        offset, size = self._spans.get(path.replace("blobs/", "blobs/sha256/", 1), (0, -1))
        if size < 0:
            raise MissingError(
                f"{self.path} has no {path}; a file exported with --light holds only what "
                "differs from the release before it"
            )
        for at in range(start, size, _PIECE):
            length = min(_PIECE, size - at)
            try:
                piece = os.pread(self._handle, length, offset + at)
            except OSError as exc:
                raise LinkError(f"cannot read {self.path}: {exc.strerror}") from exc
            if len(piece) != length:
                raise LinkError(f"{self.path} ended within {path}")
            yield piece


class Http:
    """A channel on a web server."""

    def __init__(self, url: str, link: Link) -> None:
        import urllib3

        from edgepack_runtime.update.patience import Patience

        auth, self._url = _split_auth(url.rstrip("/"))
        self._headers = {"Accept-Encoding": "identity"}
        if auth:
            self._headers["Authorization"] = f"Basic {b64encode(auth.encode()).decode()}"
        self._link = link
        self._timeout = urllib3.Timeout(connect=link.timeout, read=link.timeout)
        self._patience = Patience(link.timeout + link.window)
        proxy = link.proxy or _proxy_of_environment(url)
        try:
            self._pool = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
        except (urllib3.exceptions.HTTPError, AssertionError, ValueError) as exc:
            named = _split_auth(proxy)[1]
            why = str(exc).replace(proxy, named)
            raise InputError(f"the proxy {named!r} is not usable: {why}") from exc
        self._pool.pool_classes_by_scheme = self._patience.pools()

    def __str__(self) -> str:
        return self._url

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on, by a range request if that is not 0.

        A server that does not know ranges sends the whole file; its beginning is then dropped.
        """
        import urllib3

        url = f"{self._url}/{path}"
        asked = {"Range": f"bytes={start}-"} if start else {}
        try:
            self._patience.begin()
            answer = self._pool.request(
                "GET",
                url,
                headers={**self._headers, **asked},
                preload_content=False,
                timeout=self._timeout,
                retries=False,  # and no redirects: what is asked of one server goes to no other
            )
            try:
                content_range = answer.headers.get("Content-Range")
                skip = start - _first_byte(url, answer.status, content_range, start)
                yield from without(skip, self._paced(answer, url))
            finally:
                answer.close()
        except urllib3.exceptions.HTTPError as exc:
            raise LinkError(f"{url}: {exc}") from exc

    def _paced(self, answer: Any, url: str) -> Iterator[bytes]:
        """Yield bytes as they arrive: never faster than `most`, not slower than `least` for long.

        Only time spent waiting counts against a server.
        """
        link, begin = self._link, time.monotonic()
        total = taken = 0
        waited = 0.0
        most = min(_PIECE, link.most or _PIECE)
        while True:
            self._patience.begin()
            piece = answer.read1(most, decode_content=False)
            waited += self._patience.waited
            if not piece:
                break
            yield piece
            total, taken = total + len(piece), taken + len(piece)
            if waited >= link.window:
                if taken < link.least * waited:
                    raise LinkError(f"{url}: {taken / waited:.0f} bytes a second is too slow")
                waited, taken = 0.0, 0
            if link.most and (ahead := total / link.most - (time.monotonic() - begin)) > 0:
                time.sleep(ahead)
        if answer.length_remaining:
            raise LinkError(f"{url}: the answer ended {answer.length_remaining} bytes early")


def open_source(place: str, link: Link | None = None) -> Source:
    """Return the channel at an address, in a folder, or in a signed `.epk`.

    Raises:
        InputError: it is none of these.
        TrustError: the file is not an `.epk`, or it is not signed.

    """
    if urlsplit(place).scheme in ("http", "https"):
        return Http(place, link or Link())
    if Path(place).is_dir():
        return Folder(Path(place))
    if Path(place).is_file():
        return Archive(Path(place))
    place = _split_auth(place)[1] if "://" in place else place
    raise InputError(f"no channel at {place}: give a folder, a signed .epk, or an http(s) address")


def digest_of(archive: Source) -> str:
    """Return the digest of the release that a signed `.epk` claims to hold; empty for none."""
    try:
        index = json.loads(b"".join(archive.fetch("index.json")))
        return str(index["manifests"][0]["digest"])
    except (LinkError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ""


def _first_byte(url: str, status: int, content_range: str | None, start: int) -> int:
    """Return the offset at which a response begins; refuse one that was not asked for.

    Python's own web server, and some front ends of buckets, answer a range with the whole file.
    """
    if status in (404, 403, 410):  # buckets answer 403 for a missing file
        raise MissingError(f"{url}: {status}")
    if status == 200:
        return 0
    if not start or status != 206:
        raise LinkError(f"{url}: status {status}, expected {206 if start else 200}")
    if not (content_range or "").startswith(f"bytes {start}-"):
        raise LinkError(f"{url}: asked from byte {start}, got {content_range!r}")
    return start


def without(skip: int, stream: Iterator[bytes]) -> Iterator[bytes]:
    """Drop the first bytes of a stream."""
    for piece in stream:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def _split_auth(url: str) -> tuple[str, str]:
    """Return the `user:password` of an address, and the rest of it, which may be shown."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    host, slash, path = rest.partition("/")
    auth, at, host = host.rpartition("@")
    return (unquote(auth), f"{scheme}{slashes}{host}{slash}{path}") if at else ("", url)


def _proxy_of_environment(url: str) -> str:
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
