"""Make a blob from an older one and a difference: EPD1.

A delta is a list of operations that produce the new blob in order: copy a range of the base, add a
compressed difference to a range of the base byte by byte, or take new compressed bytes.  The
encoder knows models.  This decoder knows only bytes, needs only the standard library, and holds
only a few pieces in memory, whatever the sizes.

    EPD1, then operations: kind, codec (1 byte each), output bytes, base offset, payload bytes
    (8 bytes each, little-endian), payload
"""

from __future__ import annotations

import bz2
import lzma
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

from edgepack_runtime.bundle import limits
from edgepack_runtime.errors import TrustError

MAGIC = b"EPD1"
COPY, ADD, NEW = 0, 1, 2
RAW, BZ2, XZ = 0, 1, 2
PIECE = 1 << 20  # the most output bytes of one operation with a payload
HEADER = struct.Struct("<BBQQQ")
_SLACK = 4096  # a payload may be longer than its content, by the header of its codec

Take = Callable[[int], bytes]


class Base(Protocol):
    """The older blob: a view of it, or a file that is read range by range."""

    def __len__(self) -> int:
        """Return its size in bytes."""

    def __getitem__(self, span: slice, /) -> bytes | memoryview:
        """Return a range of it."""


def decode(take: Take, base: Base, size: int) -> Iterator[bytes]:
    """Yield the new blob, piece by piece.

    Args:
        take: returns the next bytes of the delta, as many as asked; fewer only at its end.
        base: the older blob.
        size: bytes of the new blob.

    Raises:
        TrustError: this is not a delta, or not one between these blobs.

    """
    if take(len(MAGIC)) != MAGIC:
        raise TrustError("this is not a delta of a known kind")
    done = 0
    while head := take(HEADER.size):
        if len(head) != HEADER.size:
            raise TrustError("the delta ends within an operation")
        kind, codec, length, offset, payload = HEADER.unpack(head)
        if length == 0 or length > size - done:
            raise TrustError("the delta makes more bytes than promised")
        if kind == COPY:
            yield from _copied(base, offset, length, payload)
        else:
            yield _made(take, base, (kind, codec, length, offset, payload))
        done += length
    if done != size:
        raise TrustError(f"the delta makes {done} bytes, but {size} were promised")


def _copied(base: Base, offset: int, length: int, payload: int) -> Iterator[bytes]:
    if payload or offset + length > len(base):
        raise TrustError("the delta copies from beyond its base")
    for at in range(offset, offset + length, PIECE):
        yield bytes(base[at : min(at + PIECE, offset + length)])


def _made(take: Take, base: Base, operation: tuple[int, int, int, int, int]) -> bytes:
    kind, codec, length, offset, payload = operation
    if kind not in (ADD, NEW) or length > PIECE or payload > length + _SLACK:
        raise TrustError("the delta holds an operation that is unknown or too large")
    packed = take(payload)
    if len(packed) != payload:
        raise TrustError("the delta ends within an operation")
    content = _unpacked(packed, codec, length)
    if kind == NEW:
        return content
    if offset + length > len(base):
        raise TrustError("the delta adds to bytes beyond its base")
    return added(bytes(base[offset : offset + length]), content)


def _unpacked(packed: bytes, codec: int, length: int) -> bytes:
    """Decompress a payload and check that it yields exactly `length` bytes."""
    try:
        content = packed if codec == RAW else _decompressor(codec).decompress(packed, length + 1)
    except (OSError, lzma.LZMAError, EOFError, ValueError, MemoryError) as exc:
        raise TrustError(f"a payload of the delta does not decompress: {exc}") from exc
    if len(content) != length:
        raise TrustError("a payload of the delta is longer or shorter than stated")
    return content


def _decompressor(codec: int) -> Any:
    if codec == BZ2:
        return bz2.BZ2Decompressor()
    if codec == XZ:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.DELTA_MEMORY)
    raise TrustError(f"the delta names an unknown codec, {codec}")


def added(one: bytes, other: bytes) -> bytes:
    """Add two byte strings of equal length byte by byte, modulo 256.

    All bytes are added at once, as one big integer.  The high bits are handled separately, so that
    nothing carries over into the next byte.
    """
    low, high = _masks(len(one))
    a, b = int.from_bytes(one, "little"), int.from_bytes(other, "little")
    return ((a & low) + (b & low) ^ (a ^ b) & high).to_bytes(len(one), "little")


@lru_cache(maxsize=4)
def _masks(length: int) -> tuple[int, int]:
    return int.from_bytes(b"\x7f" * length, "little"), int.from_bytes(b"\x80" * length, "little")
