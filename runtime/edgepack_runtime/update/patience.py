"""How long to wait for a web server: not for ever, whatever trickles in meanwhile.

A socket's timeout starts again with every byte.  With only such a timeout, a server could hold a
device by sending an endless header, one `100 Continue` after the other, or a chunk's trailer byte
by byte.  So each wait also has a deadline of its own, which is checked whenever bytes arrive.
"""

from __future__ import annotations

import time
from functools import partial
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Patience:
    """The longest that one wait may last, in seconds: for an answer, or for its next bytes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = 0.0

    def begin(self) -> None:
        """Begin a wait; the time since the last one, such as writing to a disk, does not count."""
        self._since = time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since the last wait began."""
        return time.monotonic() - self._since

    def check(self) -> None:
        """Raise a `TimeoutError` if the wait has lasted too long."""
        if self.waited > self._seconds:
            raise TimeoutError(f"nothing useful arrived within {self._seconds:g} s")

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Return urllib3's pools by scheme, with connections that check this deadline."""
        found: dict[str, type[HTTPConnectionPool]] = {}
        response = staticmethod(partial(_Response, self))
        for scheme, pool in (("http", HTTPConnectionPool), ("https", HTTPSConnectionPool)):
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": response})
            found[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        return found


class _Response(HTTPResponse):
    """A response that is read through `_Checked`, including its status line and headers."""

    def __init__(self, patience: Patience, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = BufferedReader(_Checked(patience, self.fp.detach()))


class _Checked(RawIOBase):
    """A connection's bytes; the deadline is checked before each read."""

    def __init__(self, patience: Patience, raw: RawIOBase) -> None:
        self._patience = patience
        self._raw = raw

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has arrived, if the wait has not lasted too long."""
        self._patience.check()
        found: int | None = self._raw.readinto(buffer)
        return found

    def close(self) -> None:
        """Close the connection's end as well."""
        self._raw.close()
        super().close()
