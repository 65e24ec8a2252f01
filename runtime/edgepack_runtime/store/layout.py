"""A release among the blobs of a store or a channel, read like any bundle."""

from __future__ import annotations

import json

from edgepack_runtime.bundle.bundle import INDEX_TYPE, MANIFEST_TYPE
from edgepack_runtime.bundle.layout import Layout
from edgepack_runtime.bundle.manifest import CHUNK, canonical_json
from edgepack_runtime.errors import TrustError
from edgepack_runtime.store.storage import Storage

BLOBS = "blobs"


class BlobLayout(Layout):
    """One release among the blobs of a store or a channel, as an OCI layout."""

    def __init__(self, storage: Storage, name: str, size: int) -> None:
        self._storage = storage
        entry = {"mediaType": MANIFEST_TYPE, "digest": f"sha256:{name}", "size": size}
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}
        self._made = {
            "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
            "index.json": canonical_json(index),
        }

    def member(self, name: str) -> memoryview:
        """Return a member: a generated one, or a blob of the store."""
        if name in self._made:
            return memoryview(self._made[name])
        path = f"{BLOBS}/{name.removeprefix('blobs/sha256/')}"
        try:
            if (
                self._storage.size(path) <= CHUNK
            ):  # updates read manifests: a bad sector must not be a signal
                return memoryview(self._storage.read(path))
            return self._storage.map(path)
        except FileNotFoundError as exc:
            raise TrustError(f"the store lacks {path}") from exc
