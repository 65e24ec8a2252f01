"""What a bad link, a mirror or a portal does to one answer of a web server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.manifest import CHUNK

if TYPE_CHECKING:
    from server import Handler


def cut(at: int) -> Callable[[Handler, bytes, int], bool]:
    """Break off after so many bytes of an answer."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        if len(content) < CHUNK:
            return False
        handler.reply(
            content[start : start + at], start, len(content), promise=len(content) - start
        )
        handler.close_connection = True
        return True

    return fault


def status(code: int) -> Callable[[Handler, bytes, int], bool]:
    """Answer with a status and nothing else."""

    def fault(handler: Handler, _: bytes, __: int) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


def whole_instead_of_range(handler: Handler, content: bytes, start: int) -> bool:
    """Answer a range with the whole file."""
    if start:
        handler.reply(content, 0, len(content))
    return bool(start)


def wrong_range(handler: Handler, content: bytes, start: int) -> bool:
    """Answer a range with one that begins a byte earlier."""
    if start:
        handler.reply(content[start - 1 :], start - 1, len(content))
    return bool(start)


def portal(handler: Handler, content: bytes, start: int) -> bool:
    """Answer with the page of a captive portal."""
    handler.reply(b"<html>please log in</html>".ljust(len(content) - start), start, len(content))
    return True


def garbled(handler: Handler, content: bytes, start: int) -> bool:
    """Change one bit in the middle."""
    body = bytearray(content[start:])
    body[len(body) // 2] ^= 1
    handler.reply(bytes(body), start, len(content))
    return True


def longer(handler: Handler, content: bytes, start: int) -> bool:
    """Send more than there is."""
    handler.reply(content[start:] + b"more", start, len(content) + 4)
    return True


def says(content_range: str) -> Callable[[Handler, bytes, int], bool]:
    """Send the right bytes under a header that says something else; `$` stands for the start."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        handler.send_response(206)
        if content_range:
            handler.send_header("Content-Range", content_range.replace("$", str(start)))
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.body(content[start:])
        return True

    return fault


def reset(handler: Handler, _: bytes, __: int) -> bool:
    """Reset the connection before a byte of an answer came."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    return True


def raw(answer: bytes) -> Callable[[Handler, bytes, int], bool]:
    """Send bytes as they are, and hang up."""

    def fault(handler: Handler, _: bytes, __: int) -> bool:
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    return fault


def once_on_weights(faults: list[Any]) -> Any:
    """Apply the faults in turn to the large file alone."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        if len(content) < CHUNK or not faults:
            return False
        return bool(faults.pop(0)(handler, content, start))

    return fault
