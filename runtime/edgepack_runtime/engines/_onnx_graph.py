"""Read just enough of an ONNX graph to check that it names no file but those that came with it.

A tensor may name a file that holds its values, by any path.  Which of these files an engine opens
depends on its version, so a graph that names a foreign one never reaches an engine.  The walk knows
protobuf's wire format and where ONNX stores tensors; it skips everything else by its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgepack_runtime.errors import TrustError

# How messages that may hold a tensor are nested: {message: {field number: message}}.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_OP_TYPE = 4  # of a node
_COMPILED = b"EPContext"  # a node that may name the file of a compiled engine
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are not ONNX
_DIGITS = 16  # of a number of bytes, at most
_LONGEST = 10  # bytes of a varint
_MOST_TAG = 1 << 32  # parsers drop what is above


def check_alone(content: memoryview, beside: Mapping[str, int] | None = None) -> None:
    """Check the files that a serialized `ModelProto` names, in any of its graphs or functions.

    Args:
        content: the model.
        beside: {name: bytes} of the files that it may name.

    Raises:
        TrustError: it names another file, or bytes that a file does not have, or it is malformed.

    """
    todo = [("model", content)]
    while todo:
        kind, message = todo.pop()
        entries, outside = [], False
        for number, value in _fields(message):
            if kind == "node" and number == _OP_TYPE and _is_compiled(value):
                raise _foreign()
            if kind == "tensor" and number == _EXTERNAL_DATA and isinstance(value, memoryview):
                entries.append(_entry(value))
            elif kind == "tensor" and number == _DATA_LOCATION:
                outside = outside or value != 0
            elif isinstance(value, memoryview) and number in _INSIDE[kind]:
                todo.append((_INSIDE[kind][number], value))
        if entries or outside:
            _check_place(entries, beside or {})


def _is_compiled(value: int | memoryview) -> bool:
    return isinstance(value, memoryview) and bytes(value) == _COMPILED


def _check_place(entries: Sequence[tuple[str, str]], beside: Mapping[str, int]) -> None:
    """Check where the values of one tensor lie."""
    place = dict(entries)
    if set(place) != {"location", "offset", "length"} or len(entries) > len(place):
        raise _foreign()
    if place["location"] not in beside:
        raise _foreign()
    sizes = [place["offset"], place["length"]]
    if not all(size.isascii() and size.isdigit() and len(size) < _DIGITS for size in sizes):
        raise _malformed()
    if sum(map(int, sizes)) > beside[place["location"]]:
        raise _malformed()


def _entry(message: memoryview) -> tuple[str, str]:
    """Return a `StringStringEntryProto`."""
    found = {number: value for number, value in _fields(message) if isinstance(value, memoryview)}
    try:
        return str(found[1], "utf-8"), str(found[2], "utf-8")
    except (KeyError, UnicodeDecodeError) as exc:
        raise _malformed() from exc


def _foreign() -> TrustError:
    return TrustError(
        "the graph names an external file, which nothing has hashed; save the model in one file "
        "and build the bundle again"
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a message; numbers of fixed size are given as bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire, size = tag & 7, 0
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _malformed()
        if not 8 <= tag < _MOST_TAG or size > end - at:
            raise _malformed()
        yield tag >> 3, value if wire == _VARINT else message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a varint and the offset where it ends."""
    value = 0
    for shift, byte in enumerate(message[at : at + _LONGEST]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise _malformed()


def _malformed() -> TrustError:
    return TrustError("the graph is malformed; the bundle is damaged, build it again")
