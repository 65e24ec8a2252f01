"""Write the difference between two blobs, in the form that `edgepack_runtime.update.delta` reads.

In a light fine-tune, quantized weights move by a step here and there.  Their difference is mostly
zeros, which bz2 and xz pack far better than any search for equal strings could.  So tensors are
aligned by name, each piece is encoded in every way, and the smallest result is used.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.update.delta import (
    ADD,
    BZ2,
    COPY,
    HEADER,
    MAGIC,
    NEW,
    PIECE,
    RAW,
    XZ,
)

_WORTH = 4096  # bytes; smaller files get no delta
_MOST_SHARE = 0.7  # of the whole file; a larger delta is not worth its risk
_LEAST = 64  # bytes; a smaller tensor gets no operation of its own
Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Delta:
    """A difference that makes one blob from another."""

    base: str
    """The sha256 of the blob that a device has."""
    blob: str
    """The sha256 of the blob that it makes."""
    content: bytes
    """The bytes that a device downloads."""

    @property
    def sha256(self) -> str:
        """Hash the content; this is the name of the delta's own blob."""
        return hashlib.sha256(self.content).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return its entry in a channel."""
        size = len(self.content)
        return {"base": self.base, "blob": self.blob, "sha256": self.sha256, "size": size}


def between(old: Bundle, new: Bundle) -> Iterator[Delta]:
    """Yield the deltas between files of two releases that have the same path."""
    before = {entry.path: entry.sha256 for entry in old.manifest.files}
    done: set[tuple[str, str]] = set()
    with TemporaryDirectory() as work:
        for part, bundle in (("old", old), ("new", new)):
            for entry in bundle.manifest.files:
                path = Path(work, part, entry.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bundle.read(entry.path))
        for entry in new.manifest.files:
            base = before.get(entry.path, entry.sha256)
            if base == entry.sha256 or entry.size < _WORTH or (base, entry.sha256) in done:
                continue
            done.add((base, entry.sha256))
            content = encode(Path(work, "old", entry.path), Path(work, "new", entry.path))
            if len(content) <= _MOST_SHARE * entry.size:
                yield Delta(base, entry.sha256, content)


def encode(base: Path, new: Path) -> bytes:
    """Return the delta from one file to another; both may be of any kind."""
    old, target = base.read_bytes(), new.read_bytes()
    ours, theirs = spans(base, old), spans(new, target)
    parts = [MAGIC]
    for start, end, offset in _aligned(theirs, ours, len(target), len(old)):
        parts += _operations(target[start:end], old, offset)
    return b"".join(parts)


def spans(path: Path, content: bytes) -> Spans:
    """Return {tensor: (offset, bytes)} for a model file; empty for a file without tensors."""
    if path.suffix == ".onnx":
        return _onnx(path, content)
    if path.suffix == ".data" and path.with_suffix(".onnx").is_file():
        return _beside(path)
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return _openvino(path.with_suffix(".xml"))
    return {}


def _onnx(path: Path, content: bytes) -> Spans:
    import onnx

    found: Spans = {}
    at = 0
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        raw = tensor.raw_data
        place = content.find(raw, at) if len(raw) >= _LEAST else -1
        if place >= 0:
            found[tensor.name] = (place, len(raw))
            at = place + len(raw)
    return found


def _beside(path: Path) -> Spans:
    """Return the weights that a graph names in the file beside it."""
    import onnx

    model = onnx.load(str(path.with_suffix(".onnx")), load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
    }
    return {
        name: (int(place["offset"]), int(place["length"]))
        for name, place in places.items()
        if place.get("location") == path.name and int(place["length"]) >= _LEAST
    }


def _openvino(path: Path) -> Spans:
    """Return constants by their number in the graph, which is the same for graphs of one form."""
    pattern = r'<layer id="(\d+)"[^>]*type="Const"[^>]*>\s*<data [^>]*offset="(\d+)" size="(\d+)"'
    return {
        name: (int(offset), int(size))
        for name, offset, size in re.findall(pattern, path.read_text())
        if int(size) >= _LEAST
    }


def _aligned(
    new: Spans, old: Spans, size: int, base_size: int
) -> Iterator[tuple[int, int, int | None]]:
    """Yield (start, end, base offset or None) ranges that cover the new file in order."""
    at, shift = 0, 0
    known = sorted(
        (offset, length, old[name][0])
        for name, (offset, length) in new.items()
        if name in old and old[name][1] == length
    )
    for offset, length, base in known:
        if offset < at:
            continue  # two tensors share these bytes
        if at < offset:
            yield at, offset, _within(at + shift, offset - at, base_size)
        yield offset, offset + length, base
        at, shift = offset + length, base - offset
    if at < size:
        yield at, size, _within(at + shift, size - at, base_size)


def _within(offset: int, length: int, size: int) -> int | None:
    return offset if offset >= 0 and offset + length <= size else None


def _operations(content: bytes, base: bytes, offset: int | None) -> Iterator[bytes]:
    if offset is not None and base[offset : offset + len(content)] == content:
        yield HEADER.pack(COPY, RAW, len(content), offset, 0)
        return
    for at in range(0, len(content), PIECE):
        piece = content[at : at + PIECE]
        place = None if offset is None else offset + at
        yield min(_ways(piece, base, place), key=len)


def _ways(piece: bytes, base: bytes, offset: int | None) -> Iterator[bytes]:
    """Yield every operation that makes a piece."""
    for codec, packed in _packed(piece):
        yield HEADER.pack(NEW, codec, len(piece), 0, len(packed)) + packed
    if offset is None:
        return
    old = base[offset : offset + len(piece)]
    if old == piece:
        yield HEADER.pack(COPY, RAW, len(piece), offset, 0)
        return
    for codec, packed in _packed(subtracted(piece, old)):
        yield HEADER.pack(ADD, codec, len(piece), offset, len(packed)) + packed


def _packed(content: bytes) -> Iterator[tuple[int, bytes]]:
    yield RAW, content
    yield BZ2, bz2.compress(content, 9)
    yield XZ, lzma.compress(content, lzma.FORMAT_XZ, preset=6)


def subtracted(one: bytes, other: bytes) -> bytes:
    """Subtract byte by byte, modulo 256."""
    import numpy as np

    return (np.frombuffer(one, np.uint8) - np.frombuffer(other, np.uint8)).tobytes()
