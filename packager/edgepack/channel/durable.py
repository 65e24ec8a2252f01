"""Files in folders that others may write to: read as what they are, written whole and durably.

A link, a pipe or a device that somebody put in the place of a file is refused, not followed, and
so is a link in the place of the folder it lies in: what lies beside the channel, the keys above
all, must not come into it.
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
        TrustError: it is something else, or lies in a folder that is a link.

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
    """Write a file whole and durably, its folder too if it is not there.

    Raises:
        TrustError: a link lies in the place of its folder.

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
    """Make a folder and those above it, and make their names durable."""
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
    """Hold a folder open, so that nobody can put a link in its place meanwhile."""
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
        "look who can write there, and remove it"
    )
