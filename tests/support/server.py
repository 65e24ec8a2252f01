"""A web server with the faults of bad links: cuts, lies about ranges, slowness, portals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

Fault = Callable[["Handler", bytes, int], bool]


@dataclass
class Server:
    """A folder served on loopback.

    faults: tried in turn on requests for blobs; one that returns true has answered.
    sent: bytes of blob bodies that were sent; asked: paths asked for.
    takes: how many uploads go through before one is refused; put: the paths that did.
    knows_conditions: an upload that asks for a new name does not go over what is there.
    """

    root: Path
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    sent: int = 0
    asked: list[str] = field(default_factory=list)
    takes: int = 1 << 30
    put: list[str] = field(default_factory=list)
    knows_conditions: bool = False


class Handler(BaseHTTPRequestHandler):
    """Serves files with ranges, unless a fault answers."""

    server_version = "test"
    state: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        self.state.asked.append(self.path)
        path = self.state.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        if "/blobs/" in self.path and self.state.faults:
            fault = self.state.faults.pop(0)
            if fault(self, content, start):
                return
        self.reply(content[start:], start, len(content))

    def do_HEAD(self) -> None:
        """Tell the size of a file."""
        path = self.state.root / self.path.lstrip("/")
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.end_headers()

    def do_PUT(self) -> None:
        """Take a file whole, as WebDAV does."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.state.put) >= self.state.takes:
            self.send_error(503)
            return
        path = self.state.root / self.path.lstrip("/")
        if self.state.knows_conditions and self.headers.get("If-None-Match") and path.exists():
            self.send_error(412)
            return
        self.state.put.append(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.send_response(201)
        self.end_headers()

    def reply(self, body: bytes, start: int, total: int, *, promise: int | None = None) -> None:
        """Send a body as a whole file or a range; `promise` overrides its announced length."""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body) if promise is None else promise))
        self.end_headers()
        self.body(body)

    def body(self, content: bytes) -> None:
        """Send bytes and count them."""
        if "/blobs/" in self.path:
            self.state.sent += len(content)
        self.wfile.write(content)


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Serve a folder until the block ends."""
    state = Server(root)
    with listening(type("Bound", (Handler,), {"state": state})) as state.url:
        yield state


@contextmanager
def listening(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer on loopback until the block ends; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    worker = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    worker.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        worker.join()
