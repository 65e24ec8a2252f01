"""Find a bundle wherever it is: in a folder, in an `.epk`, or as a release of a store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from weakref import finalize

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError
from edgepack_runtime.store.reader import Reader
from edgepack_runtime.store.record import FILES


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle as `Bundle.open` does; in a store, open the release that runs.

    A release of a store is hashed completely, and it is protected from collection while the
    `Bundle` object lives, because engines read some files only when they need them.  Its path,
    `STORE/sha256:…`, opens that release whichever one runs.

    Raises:
        InputError: there is nothing at `path`, or it is a store without a release.
        TrustError: it is not a bundle, it is truncated or altered, or its format is too new.

    """
    path = Path(path)
    if _is_store(path.parent) and path.name.startswith("sha256:"):
        return _released(path)
    return _running(path) if _is_store(path) else Bundle.open(path)


def _is_store(path: Path) -> bool:
    return any((path / name).is_file() for name in FILES)


def _released(path: Path) -> Bundle:
    return Reader.at(path.parent).blobs.bundle(path.name)


def _running(store: Path) -> Bundle:
    with ExitStack() as held:
        running = held.enter_context(Reader.at(store).reading())
        if running is None:
            raise InputError(f"the store at {store} has no release yet; load the factory bundle")
        finalize(running, held.pop_all().close)
    return running
