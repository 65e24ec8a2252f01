"""Bad links: a download is delayed, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faults import (
    cut,
    garbled,
    longer,
    once_on_weights,
    portal,
    raw,
    reset,
    says,
    status,
    whole_instead_of_range,
    wrong_range,
)
from fleet import BIG, new_device, take_update

from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Http, Link

if TYPE_CHECKING:
    from server import Server

LIES = [
    "",
    "bytes",
    "bytes ",
    "bytes */3145731",
    "bytes 0-3145730/3145731",
    "bytes 1-2/3",
    "bytes -$-9/9",
    "bytes 0x$-9/*",
    "items $-9/9",
    "bytes  $-9/9",
    "bytes=$-9/9",
    "bytes $",
    "bytes 99999999999999999999-9/9",
    "bytes $$-9/9",
    "\u00e9",
    "bytes $-1, $-2",
]
CUTS = [
    0,
    1,
    1000,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK,
    2 * CHUNK + 77,
    3 * CHUNK,
    len(BIG) - 1,
    len(BIG),
]
FAULTS: dict[str, Sequence[Any]] = {
    **{f"cut after {at}": [cut(at)] for at in CUTS},
    **{f"cut twice after {at}": [cut(at), cut(at // 2 + 1)] for at in CUTS},
    **{f"status {code}": [status(code)] for code in (301, 302, 400, 404, 416, 429, 500, 502, 503)},
    **{f"{code} after a cut": [cut(CHUNK + 5), status(code)] for code in (200, 206, 404, 500)},
    "whole file for a range": [cut(CHUNK + 5), whole_instead_of_range],
    "another range": [cut(CHUNK + 5), wrong_range],
    "captive portal": [portal],
    "portal after a cut": [cut(2 * CHUNK), portal],
    "garbled": [garbled],
    "garbled after a cut": [cut(CHUNK), garbled],
    "longer": [longer],
    "longer after a cut": [cut(CHUNK), longer],
    **{f"says {lie!r}": [cut(CHUNK + 5), says(lie)] for lie in LIES},
    "reset": [reset],
    "reset after a cut": [cut(CHUNK + 5), reset],
    "no header": [raw(b"")],
    "half a header": [raw(b"HTTP/1.1 200 OK\r\nContent-Le")],
    "no HTTP": [raw(b"SSH-2.0-OpenSSH_9.2\r\n")],
    "negative length": [raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")],
    "endless header": [raw(b"HTTP/1.1 200 OK\r\n" + b"X-More: 1\r\n" * 500)],
    "no length": [raw(b"HTTP/1.0 200 OK\r\n\r\nsome")],
    "chunks that end": [raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nab")],
    "gzip": [raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")],
    "twenty drops": [cut(200_000)] * 20,
    "everything at once": [
        cut(5),
        status(503),
        portal,
        garbled,
        cut(CHUNK),
        longer,
        whole_instead_of_range,
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_link_delays_and_no_more(place: Path, server: Server, fault: str) -> None:
    """The release arrives whole, and a drop wastes at most the chunk that it broke."""
    faults = FAULTS[fault]
    server.faults = [once_on_weights(list(faults))] * 200
    device = new_device(place, Http(server.url, Link(timeout=5)), Policy(attempts=40, pause=0.0))
    assert take_update(device)
    wasted = server.sent - sum(p.stat().st_size for p in (place / "channel/blobs").iterdir())
    assert wasted <= (CHUNK + 64 * 1024) * len(faults) + 4 * CHUNK * _lies(fault)
    assert device.store.storage.names(PARTS) == []


def _lies(fault: str) -> int:
    """Count the answers that are whole files of wrong bytes."""
    return sum(fault.count(word) for word in ("portal", "garbled", "longer", "whole")) + 4 * (
        fault == "everything at once"
    )
