"""Where the members of an OCI layout are: in a folder, or in one uncompressed tar.

Nothing is extracted under a name that comes from an archive, and sizes are bounded before anything
is read into memory.
"""

from __future__ import annotations

import re
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from edgepack_runtime.bundle import limits
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.paths import map_file

if TYPE_CHECKING:
    from typing_extensions import Self

_HOSTILE = (RecursionError, OverflowError, MemoryError)  # what a crafted header can cause
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_METADATA = re.compile(r"metadata/(\d+\.)?(root|targets|snapshot|timestamp)\.json")
_FOLDERS = {"blobs", "blobs/sha256", "metadata"}
_TOP = {"oci-layout", "index.json"}


class _Header(tarfile.TarInfo):
    """A header of an archive that holds only plain files and folders.

    Extended headers (pax, long names, sparse files) are refused before their bodies are read;
    `tarfile` would read them at any size they claim.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Look at the next header before `tarfile` acts on it, then read it.

        Not `frombuf`: Python 3.13.4 no longer calls it.
        """
        source = archive.fileobj
        assert source is not None  # noqa: S101 (the archive is open)
        start = source.tell()
        with suppress(tarfile.HeaderError):  # of the end, or damaged: `tarfile` says so
            block = source.read(tarfile.BLOCKSIZE)
            header = tarfile.TarInfo.frombuf(block, archive.encoding or "utf-8", archive.errors)
            if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                raise TrustError(
                    f"member {header.name!r} does not belong in a bundle: it is not a plain file "
                    "of a USTAR archive"
                )
        source.seek(start)
        return super().fromtarfile(archive)


class Layout(Protocol):
    """Where the members of an OCI layout are found."""

    def member(self, name: str) -> memoryview:
        """Return the bytes of one member; a `TrustError` if it is not there."""


class FolderLayout:
    """An OCI layout in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def member(self, name: str) -> memoryview:
        """Map one file of the folder; links are refused, also on the way to the file."""
        path = self._root / name
        on_the_way = (path, *path.parents)[: name.count("/") + 1]
        if any(step.is_symlink() for step in on_the_way) or not path.is_file():
            raise TrustError(f"{self._root}: {name} is missing or not a plain file")
        return _map(path)


class ArchiveLayout:
    """An OCI layout in one uncompressed tar."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = _map(path)
        self._spans = scan(path, len(self._bytes))

    def member(self, name: str) -> memoryview:
        """Return a view into the mapped archive."""
        if name not in self._spans:
            raise TrustError(f"{self._path}: {name} is missing; the file may be truncated")
        offset, size = self._spans[name]
        return self._bytes[offset : offset + size]


def _map(path: Path) -> memoryview:
    try:
        return map_file(path)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def scan(path: Path, length: int, stream: BinaryIO | None = None) -> dict[str, tuple[int, int]]:
    """List the members of an archive as name -> (offset, size); refuse all but plain files.

    Args:
        path: where it is, for errors.
        length: its size in bytes.
        stream: the opened archive; if None, it is opened by its path.

    Raises:
        TrustError: it is not the archive of a bundle, or holds something that does not belong.

    """
    spans: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:", fileobj=stream, tarinfo=_Header) as archive:
            for count, item in enumerate(archive):
                if count >= limits.MEMBERS:
                    raise TrustError(f"{path}: more than {limits.MEMBERS} members")
                name = item.name.removeprefix("./")
                if item.isdir() and name in {".", *_FOLDERS}:
                    continue
                if item.isdir() or not _belongs(name) or name in spans:
                    raise TrustError(f"{path}: member {item.name!r} does not belong in a bundle")
                if name in _TOP and item.size > limits.TOP_BYTES:
                    raise TrustError(f"{path}: {name} is larger than {limits.TOP_BYTES} bytes")
                if item.offset_data + item.size > length:
                    raise TrustError(f"{path}: truncated inside {name}")
                spans[name] = (item.offset_data, item.size)
    except (tarfile.TarError, ValueError, EOFError, *_HOSTILE) as exc:
        raise TrustError(f"{path} is not a bundle, or is damaged: {exc}") from exc
    return spans


def _belongs(name: str) -> bool:
    """Tell whether an archive may hold a member: part of the layout, or metadata that signs it."""
    return name in _TOP or bool(_BLOB.fullmatch(name) or _METADATA.fullmatch(name))
