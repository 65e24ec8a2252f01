"""Mirrors that want to hold a device for ever: it gives them up and asks the next one."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
from fleet import BIG, new_device, take_update

from edgepack_runtime.errors import LinkError
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Folder, Http, Link

if TYPE_CHECKING:
    from server import Server

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (_OK, b"X-More: 1\r\n"),
    "header line": (_OK + b"X-More: ", b"1"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk extension": (_CHUNKED + b"1;", b"x"),
    "trailer": (_CHUNKED + b"1\r\nx\r\n0\r\n", b"X-More: 1\r\n"),
    "body": (_OK + b"Content-Length: 99999\r\n\r\n", b"x"),
}
_PIECES, _PAUSE = 400, 0.03  # what a mirror sends before it gives up itself: 12 seconds of it
QUICK = Link(timeout=0.5, window=0.3, least=1000)


@dataclass
class Drip:
    """A server that answers each request with a beginning and then the same piece over and over.

    exhausted: somebody listened to all of it.
    """

    beginning: bytes
    piece: bytes
    exhausted: bool = False

    def answer(self, connection: socket.socket, stop: Event) -> None:
        """Send it all, unless the other side hangs up."""
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self.beginning)
            for _ in range(_PIECES):
                connection.sendall(self.piece)
                if stop.wait(_PAUSE):
                    return
            self.exhausted = True


@contextmanager
def dripping(drip: Drip) -> Iterator[str]:
    """Let it listen until the block ends; yield its address."""
    stop, threads = Event(), []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(Thread(target=drip.answer, args=(connection, stop)))
                    threads[-1].start()

        acceptor = Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (acceptor, *threads):
                thread.join()


@pytest.mark.parametrize("what", DRIPS)
def test_a_mirror_that_drips_cannot_block_a_good_one(place: Path, what: str) -> None:
    """Whatever never ends in its answer, it is given up and the next mirror is asked."""
    drip = Drip(*DRIPS[what])
    with dripping(drip) as url:
        device = new_device(place, policy=Policy(attempts=2, pause=0.0))
        both = replace(device, sources=[Http(url, QUICK), *device.sources])
        assert both.check().version == "1.1"
    assert not drip.exhausted


@pytest.mark.parametrize("what", ["metadata/timestamp.json", "metadata/2.root.json", "blob"])
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "folder", "device"])
def test_a_stick_that_holds_no_plain_file_cannot_block_a_mirror(
    place: Path, what: str, kind: str
) -> None:
    """A pipe has no end and a device never ends: neither is read, and the next place is asked."""
    shutil.copytree(place / "channel", place / "stick")
    blob = max((place / "stick/blobs").iterdir(), key=lambda path: path.stat().st_size)
    path = blob if what == "blob" else place / "stick" / what
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    if "pipe" in kind:
        os.mkfifo(place / "pipe")
    if kind == "pipe":
        (place / "pipe").rename(path)
    if kind in ("link to a pipe", "device"):
        path.symlink_to(place / "pipe" if kind != "device" else "/dev/zero")
    device = new_device(place, policy=Policy(attempts=2, pause=0.0))
    stick = Folder(place / "stick")
    assert take_update(replace(device, sources=[stick, *device.sources]))
    with pytest.raises(LinkError):
        list(stick.fetch(str(path.relative_to(place / "stick"))))


def test_an_own_cap_is_not_held_against_the_server(place: Path, server: Server) -> None:
    """Who takes fewer bytes a second than a server has to send waits for nobody."""
    (place / "channel/blobs/small").write_bytes(BIG[:200])
    link = Link(timeout=5, most=150, least=10_000, window=0.2)
    assert b"".join(Http(server.url, link).fetch("blobs/small")) == BIG[:200]
