"""Deltas: every way of making a blob, and nothing but that blob."""

from __future__ import annotations

import bz2
import lzma
import tracemalloc
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.channel import delta
from edgepack_runtime.errors import TrustError
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
    added,
    decode,
)

RNG = np.random.default_rng(0)
BASE = RNG.normal(0, 20, 3 * PIECE + 1000).astype(np.int8).tobytes()


def _decode(content: bytes, base: bytes, size: int) -> bytes:
    return b"".join(decode(BytesIO(content).read, memoryview(base), size))


def _files(folder: Path, old: bytes, new: bytes) -> bytes:
    (folder / "old.dat").write_bytes(old)
    (folder / "new.dat").write_bytes(new)
    return delta.encode(folder / "old.dat", folder / "new.dat")


def _nudged(share: float) -> bytes:
    values = np.frombuffer(BASE, np.int8).copy()
    chosen = RNG.random(len(values)) < share
    values[chosen] += RNG.choice(np.array([-1, 1], np.int8), int(chosen.sum()))
    return values.tobytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.3])
def test_a_light_change_is_a_small_delta(share: float, tmp_path: Path) -> None:
    """Near the entropy of the change, and never larger than the file and its headers."""
    new = _nudged(share)
    packed = _files(tmp_path, BASE, new)
    assert _decode(packed, BASE, len(new)) == new
    entropy = 0.0
    if share:
        entropy = -(1 - share) * np.log2(1 - share) - share * np.log2(share / 2)
    assert len(packed) <= 1.2 * len(new) * entropy / 8 + len(new) / 1000
    assert len(packed) < len(bz2.compress(new))


@pytest.mark.parametrize(
    "new",
    [
        b"",
        b"x",
        BASE,
        BASE[: PIECE + 5],
        BASE + b"more",
        BASE[1000:],
        BASE[::-1],
        bytes(2 * PIECE),
        b"y" * (PIECE + 1),
        BASE[:PIECE] + b"new" * 5000 + BASE[2 * PIECE :],
    ],
    ids=range(10),
)
def test_any_pair_of_files_comes_out(new: bytes, tmp_path: Path) -> None:
    """Shorter, longer, shifted, unlike: exactly the new one, never more than it and 64 KiB."""
    packed = _files(tmp_path, BASE, new)
    assert _decode(packed, BASE, len(new)) == new
    assert len(packed) <= len(new) + 65536


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=200, deadline=None)
def test_bytes_add_without_carrying(one: bytes) -> None:
    """Each byte for itself, modulo 256; and subtraction is its inverse."""
    other = np.random.default_rng(len(one)).bytes(len(one))
    assert added(one, other) == bytes((a + b) % 256 for a, b in zip(one, other, strict=True))
    assert added(delta.subtracted(one, other), other) == one


def _op(kind: int, codec: int, length: int, offset: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, codec, length, offset, len(payload)) + payload


BAD = {
    "no magic": b"EPD2" + _op(NEW, RAW, 4, 0, b"four"),
    "empty": b"",
    "cut in a header": MAGIC + _op(NEW, RAW, 4, 0, b"four")[:9],
    "cut in a payload": MAGIC + _op(NEW, RAW, 4, 0, b"four")[:-1],
    "too little": MAGIC + _op(NEW, RAW, 3, 0, b"thr"),
    "too much": MAGIC + _op(NEW, RAW, 5, 0, b"fives"),
    "two much": MAGIC + _op(NEW, RAW, 4, 0, b"four") + _op(NEW, RAW, 1, 0, b"x"),
    "nothing": MAGIC + _op(NEW, RAW, 0, 0, b""),
    "copy from beyond": MAGIC + _op(COPY, RAW, 4, 10**9, b""),
    "copy near the end": MAGIC + _op(COPY, RAW, 4, len(BASE) - 3, b""),
    "copy with a payload": MAGIC + _op(COPY, RAW, 4, 0, b"x"),
    "add to beyond": MAGIC + _op(ADD, RAW, 4, len(BASE) - 2, b"four"),
    "huge offset": MAGIC + _op(ADD, RAW, 4, 2**64 - 1, b"four"),
    "huge length": MAGIC + HEADER.pack(NEW, RAW, 2**63, 0, 4) + b"four",
    "huge payload": MAGIC + HEADER.pack(NEW, RAW, 4, 0, 2**62) + b"four",
    "unknown kind": MAGIC + _op(7, RAW, 4, 0, b"four"),
    "unknown codec": MAGIC + _op(NEW, 9, 4, 0, b"four"),
    "no bz2": MAGIC + _op(NEW, BZ2, 4, 0, b"four"),
    "no xz": MAGIC + _op(NEW, XZ, 4, 0, b"four"),
    "bz2 bomb": MAGIC + _op(NEW, BZ2, 4, 0, bz2.compress(bytes(50_000_000))),
    "xz bomb": MAGIC + _op(NEW, XZ, 4, 0, lzma.compress(bytes(50_000_000))[:4000]),
    "xz with a large window": MAGIC + _op(NEW, XZ, 4, 0, lzma.compress(b"four", preset=9)),
    "payload of a short one": MAGIC + _op(NEW, RAW, 4, 0, b"three"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_delta_is_one_clear_error(name: str) -> None:
    """Truncated, oversized, out of range, or a bomb: `TrustError`, and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(TrustError):
            _decode(BAD[name], BASE, 4)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_decoded_or_refused(junk: bytes, at: int) -> None:
    """A flipped, spliced or random delta gives the right size or a `TrustError`, nothing else."""
    good = MAGIC + _op(COPY, RAW, 50, 7, b"") + _op(ADD, BZ2, 9, 0, bz2.compress(b"nine byte"))
    for content in (junk, MAGIC + junk, good[:at] + junk + good[at:], good[:at] + junk):
        with suppress(TrustError):
            assert len(_decode(content, BASE, 59)) == 59


def test_memory_does_not_grow_with_the_blob(tmp_path: Path) -> None:
    """Far below 64 MB, whatever the size."""
    new = _nudged(0.3)
    once = _files(tmp_path, BASE, new)
    packed = once + once[len(MAGIC) :] * 7  # the same operations on the same base, eight times
    tracemalloc.start()
    stream = decode(BytesIO(packed).read, memoryview(BASE), 8 * len(new))
    size = sum(len(piece) for piece in stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 8 * len(new)
    assert peak < 24_000_000
