"""Files in folders that others may write to: read only if plain, written whole and durably.

If somebody replaced a file by a link, a pipe or a device, it is refused, not followed.  The same
holds for a link in place of the file's folder.  Otherwise files next to the channel, above all the
keys, could get into the channel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgepack_runtime.errors import TrustError


def read_plain(path: Path) -> bytes:
    """Return the bytes of a plain file.

    Raises:
        FileNotFoundError: there is none.
        TrustError: it is something else, or its folder is a link.

    """
    with _folder(path.parent) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its writer
        try:
            handle = os.open(path.name, flags, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise _foreign(path) from exc
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _foreign(path)
            return stream.read()


def write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file whole and durably; make its folder if it is not there.

    Raises:
        TrustError: there is a link in place of its folder.

    """
    make_folder(path.parent)
    work = f".{path.name}.part"
    with _folder(path.parent) as folder:
        with suppress(FileNotFoundError):
            os.unlink(work, dir_fd=folder)  # never through a link that somebody left there
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(work, flags, mode, dir_fd=folder), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(work, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents, and make their names durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """Hold a folder open, so that nobody can replace it by a link meanwhile."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise _foreign(path) from exc
    try:
        yield handle
    finally:
        os.close(handle)


def _foreign(path: Path) -> TrustError:
    return TrustError(
        f"{path} is not a plain file or folder: somebody put a link or a pipe there; "
        "check who can write there, and remove it"
    )
