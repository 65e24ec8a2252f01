"""Room on a store's disk: unneeded blobs are removed before an update is refused."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from edgepack_runtime.errors import DeviceError
from edgepack_runtime.store import record as records
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.store.reader import Reader
from edgepack_runtime.store.storage import Storage

_MARGIN = 1 << 20  # bytes left free for the rest of the system


def has_room(storage: Storage, size: int) -> bool:
    """Tell whether `size` more bytes fit, with some left for the rest of the system."""
    return storage.free() >= size + _MARGIN


def make_room(store: Reader, size: int, keep: Collection[str] = ()) -> None:
    """Make room for `size` more bytes, by removing what no release needs.

    `keep` names blobs of a release that is being downloaded: they are protected.

    Raises:
        DeviceError: there is not enough room.

    """
    parts = (store.storage.size(f"{PARTS}/{name}") for name in keep)
    needed = size - sum(max(0, part) for part in parts) + _MARGIN
    if store.storage.free() < needed:
        collect(store, keep)
    state = store.state
    settled = not state.trial and store.blobs.whole(state.active) is not None
    if store.storage.free() < needed and settled:
        records.write(
            store.storage, replace(store.state, previous="")
        )  # better than never updating again
        collect(store, keep)
    if store.storage.free() < needed:
        collect(store, keep, spare_readers=False)  # any local user can hold a reader's lock
    if (free := store.storage.free()) < needed:
        raise DeviceError(
            f"the store needs {needed / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free"
        )


def collect(store: Reader, keep: Collection[str] = (), *, spare_readers: bool = True) -> int:
    """Remove blobs that no release needs, nobody reads and `keep` does not protect."""
    state = store.state
    releases = filter(None, (state.active, state.previous, state.trial))
    return store.blobs.collect(releases, keep, spare_readers=spare_readers)
