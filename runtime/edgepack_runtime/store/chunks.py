"""Cut a stream into the signed chunks, and check each one as it arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.errors import LinkError

Buffer = bytes | memoryview


class WrongBytesError(LinkError):
    """The bytes are not what was signed; another attempt or mirror may deliver the right ones."""


def rest(content: memoryview, start: int) -> Iterator[Buffer]:
    """Yield everything from `start` on, in one piece."""
    yield content[start:]


def checked(stream: Iterator[Buffer], size: int, chunks: Sequence[str]) -> Iterator[bytes]:
    """Cut a stream into chunks and check each one; the stream must hold exactly `size` bytes."""
    digests, buffer, left = iter(chunks), bytearray(), size
    for piece in stream:
        buffer += piece
        if len(buffer) > left:
            raise WrongBytesError("more bytes arrived than were signed")
        while len(buffer) >= CHUNK:
            yield _right(bytes(buffer[:CHUNK]), next(digests, ""))
            del buffer[:CHUNK]
            left -= CHUNK
    if len(buffer) < left:
        raise LinkError(f"the stream ended {left - len(buffer)} bytes early")
    if buffer:
        yield _right(bytes(buffer), next(digests, ""))


def _right(chunk: bytes, digest: str) -> bytes:
    if digest and hashlib.sha256(chunk).hexdigest() != digest:
        raise WrongBytesError("a chunk is not what was signed")
    return chunk
