"""A hawkBit server with one deployment, as far as a device sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from server import listening


@dataclass
class Hawkbit:
    """A hawkBit server with one deployment, as far as a device sees it."""

    artifact: bytes = b""
    url: str = ""
    cut: int = 0
    results: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def answer(self, path: str) -> dict[str, Any]:
        """Return what a resource says."""
        if path.endswith("/device"):
            href = f"{self.url}/t/controller/v1/device/deploymentBase/7"
            links = {"deploymentBase": {"href": href}} if self.artifact else {}
            return {"config": {"polling": {"sleep": "00:05:00"}}, "_links": links}
        sha256 = hashlib.sha256(self.artifact).hexdigest()
        item = {
            "filename": "model.epk",
            "size": len(self.artifact),
            "hashes": {"sha256": sha256},
            "_links": {"download-http": {"href": f"{self.url}/file"}},
        }
        chunk = {"part": "bApp", "version": "1", "name": "model", "artifacts": [item]}
        return {"id": "7", "deployment": {"download": "forced", "chunks": [chunk]}}


@contextmanager
def serve_hawkbit() -> Iterator[Hawkbit]:
    """Serve on loopback until the block ends."""
    state = Hawkbit()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "TargetToken secret"
            if self.path != "/file":
                self.send(200, json.dumps(state.answer(self.path)).encode())
                return
            asked = self.headers.get("Range", "")
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
            body = state.artifact[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut or len(body)])
            state.cut = 0

        def do_POST(self) -> None:
            assert self.path.endswith("/deploymentBase/7/feedback")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = json.loads(body)["status"]
            state.results.append(status["result"]["finished"])
            state.details = status["details"]
            self.send(200, b"")

        def send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as state.url:
        yield state
