"""A file that nobody signed costs little memory and time before it is refused."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest

from edgepack_runtime.bundle.bundle import MANIFEST_TYPE

HUGE = 1000 << 20
CHILD = """
import resource, sys
from pathlib import Path
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import TrustError
from edgepack_runtime.update.source import Archive, digest_of
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
mapped = Path(sys.argv[1]).stat().st_size
most = used + 2 * mapped + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for read in (Bundle.open, lambda path: digest_of(Archive(path))):
    try:
        read(Path(sys.argv[1]))
    except TrustError as exc:
        print(exc)
"""


def sparse(path: Path, header: tarfile.TarInfo) -> None:
    """Write an archive that is one header and a body of zeros that takes no disk."""
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size + header.size)


def of_type(kind: bytes) -> Callable[[Path], None]:
    """Return what writes a header of a type with a huge body."""

    def write(path: Path) -> None:
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = kind, HUGE
        sparse(path, header)

    return write


def digits(path: Path) -> None:
    """Write a pax header over which a backtracking pattern takes minutes."""
    header = tarfile.TarInfo("pax")
    body = b"1" * 1_000_000
    header.type, header.size = tarfile.XHDTYPE, len(body)
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(-(-len(body) // 512) * 512))


def huge_index(path: Path) -> None:
    """Write an `index.json` of a gigabyte."""
    header = tarfile.TarInfo("index.json")
    header.size = HUGE
    sparse(path, header)


def many_lists(size: int) -> Callable[[Path], None]:
    """Return what writes a bundle whose OCI manifest is as many empty lists as fit into a size."""

    def write(path: Path) -> None:
        folder = handmade.bundle(path.with_suffix(""), layout="folder")
        content = b"[" + b",".join([b"[]"] * (size // 3 - 1)) + b"]"
        digest = hashlib.sha256(content).hexdigest()
        entry = {"mediaType": MANIFEST_TYPE, "size": len(content), "digest": f"sha256:{digest}"}
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "blobs/sha256" / digest).write_bytes(content)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name in ("oci-layout", "index.json", f"blobs/sha256/{digest}"):
                archive.add(folder / name, name)

    return write


HOSTILE: dict[str, Callable[[Path], None]] = {
    "pax": of_type(tarfile.XHDTYPE),
    "global pax": of_type(tarfile.XGLTYPE),
    "long name": of_type(tarfile.GNUTYPE_LONGNAME),
    "long link": of_type(tarfile.GNUTYPE_LONGLINK),
    "sparse": of_type(tarfile.GNUTYPE_SPARSE),
    "digits": digits,
    "index": huge_index,
    "lists": many_lists(16 << 20),
    "fewer lists": many_lists(4 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """With 200 MB of memory and 20 s of CPU it is a clear error, opened or imported."""
    path = tmp_path / "hostile.epk"
    HOSTILE[name](path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert re.search("does not belong|larger than|one above|not a JSON object", done.stdout)
