"""Find a bundle wherever it lies: a folder, an `.epk`, or a release of a store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from weakref import finalize

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError
from edgepack_runtime.store.reader import Reader
from edgepack_runtime.store.record import FILES


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle as `Bundle.open` does, or the release that runs from a store.

    That is hashed as a whole, and not collected as long as somebody holds the bundle: engines read
    some files only when they need them.  `STORE/sha256:…`, which is the path of such a bundle,
    opens that release, whatever runs.

    Raises:
        InputError: there is nothing at `path`, or a store without a release.
        TrustError: it is not a bundle, is truncated or altered, or its format is newer.

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
            raise InputError(f"the store at {store} has no release yet; load the factory's bundle")
        finalize(running, held.pop_all().close)
    return running
