"""Read a bundle: an OCI image layout in a folder or in one uncompressed tar (`.epk`).

Invariants:
* nothing is extracted under a name that comes from the archive; members are found by digest;
* every blob is hashed before any of it is parsed or passed to an engine;
* sizes are bounded before anything is read into memory.

`FORMAT.md` next to this package is the specification.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from edgepack_runtime.bundle import limits
from edgepack_runtime.bundle.layout import ArchiveLayout, FolderLayout, Layout
from edgepack_runtime.bundle.manifest import Graph, Manifest, Variant, decode
from edgepack_runtime.bundle.names import safe_path
from edgepack_runtime.errors import InputError, TrustError

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
REPORT = "dev.edgepack.report"
FILEPATH = "org.cncf.model.filepath"


class Bundle:
    """A manifest and its blobs.

    Attributes:
        path: where it was opened.
        manifest: what it says about itself, already checked.
        digest: `sha256:…` of its OCI manifest, the identity of the bundle.
        report: what its build measured, stage by stage; for people, not covered by `digest`.

    """

    def __init__(self, path: Path, layout: Layout) -> None:
        try:
            self.digest, self._tops, self.manifest, self.report = _open_layout(layout)
        except TrustError as exc:
            raise TrustError(f"{path}: {exc}") from exc
        self.path = path
        self._layout = layout

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle folder or `.epk`; read and check its manifests, but no weights.

        Raises:
            InputError: there is nothing at `path`.
            TrustError: it is not a bundle, it is truncated or altered, or its format is too new.

        """
        path = Path(path)
        try:
            is_folder = S_ISDIR(path.stat().st_mode)
        except (OSError, ValueError) as exc:
            raise InputError(
                f"no bundle at {path}; give a folder or an .epk made by edgepack build"
            ) from exc
        return cls(path, FolderLayout(path) if is_folder else ArchiveLayout(path))

    def read(self, path: str) -> memoryview:
        """Return the bytes of one file of the manifest, hashed first.

        Raises:
            TrustError: the blob is missing, or its size or digest differs.

        """
        entry = self.manifest.file(path)
        return _checked(self._layout, entry.sha256, entry.size, path)

    def files(self, variant: Variant, graph: Graph | None = None) -> VariantFiles:
        """Return the files of a variant, or of one of its graphs, by name.

        Each file is read and hashed when it is accessed.

        Raises:
            TrustError: two of them have the same name.

        """
        return VariantFiles(self, variant.name, (graph or variant).files)

    def blobs(self) -> dict[str, int]:
        """Return {sha256: bytes} of every blob: the OCI manifest, the model config, the files."""
        return {**self._tops, **{entry.sha256: entry.size for entry in self.manifest.files}}

    def blob(self, sha256: str) -> memoryview:
        """Return one blob, hashed first; a `TrustError` if it differs or is not in this bundle."""
        size = self.blobs().get(sha256)
        if size is None:
            raise TrustError(f"{self.path} has no blob {sha256}")
        return _checked(self._layout, sha256, size, f"blob {sha256[:12]}")

    def verify(self) -> int:
        """Hash every file of the bundle and return the number of bytes.

        Raises:
            TrustError: a file is missing or differs; the first one is named.

        """
        return sum(len(self.read(entry.path)) for entry in self.manifest.files)

    def verify_kit(self, wheels: Path) -> None:
        """Compare the wheels of a kit with the digests in the manifest.

        Raises:
            InputError: the bundle was packed without a kit.
            TrustError: a wheel is missing, differs, or does not belong to the kit.

        """
        if not self.manifest.kit:
            raise InputError(f"{self.path} was built without a kit (edgepack build --kit)")
        if foreign := sorted({p.name for p in wheels.glob("*")} - set(self.manifest.kit)):
            raise TrustError(f"{wheels} holds {foreign[0]}, which does not belong to the kit")
        for name, digest in self.manifest.kit.items():
            try:
                content = (wheels / name).read_bytes() if safe_path(name) else b""
            except OSError as exc:
                raise TrustError(f"{wheels / name} is missing: {exc.strerror}") from exc
            if hashlib.sha256(content).hexdigest() != digest:
                raise TrustError(f"{wheels / name} is not what the bundle was packed with")


class VariantFiles(Mapping[str, memoryview]):
    """The files of one variant or graph, read lazily.

    A file's name is its path in the variant's folder: `model.onnx`, `encoder/model.onnx`.  A file
    elsewhere in the bundle is named by its whole path.

    Attributes:
        key: a digest of the names and contents: equal keys mean equal files.

    """

    def __init__(self, bundle: Bundle, variant: str, paths: Sequence[str]) -> None:
        self._bundle = bundle
        self._where = f"{bundle.path}: variant {variant}"
        self._paths = {path.removeprefix(f"{variant}/"): path for path in paths}
        if len(self._paths) < len(paths):
            raise TrustError(f"{self._where} has two files of the same name; build it again")
        digests = [
            f"{name} {bundle.manifest.file(path).sha256}" for name, path in self._paths.items()
        ]
        self.key = hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def __getitem__(self, name: str) -> memoryview:
        if name not in self._paths:
            raise TrustError(f"{self._where} has no file {name}, which its engine reads")
        return self._bundle.read(self._paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _open_layout(layout: Layout) -> tuple[str, dict[str, int], Manifest, list[Any]]:
    """Return the digest, the sizes of both manifests by digest, the manifest and the report."""
    marker = _object(layout.member("oci-layout"), "oci-layout", limits.TOP_BYTES)
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise TrustError("oci-layout does not say imageLayoutVersion 1.0.0")
    index = _object(layout.member("index.json"), "index.json", limits.TOP_BYTES)
    entries = index.get("manifests")
    if index.get("schemaVersion") != 2 or not isinstance(entries, list) or len(entries) != 1:
        raise TrustError("index.json does not hold exactly one manifest")
    digest, body = _descriptor(layout, entries[0], MANIFEST_TYPE, "the OCI manifest")
    image = _object(body, "the OCI manifest")
    if image.get("artifactType") != ARTIFACT_TYPE:
        raise TrustError(f"the OCI manifest is not a model (artifactType {ARTIFACT_TYPE})")
    inner, config = _descriptor(layout, image.get("config"), CONFIG_TYPE, "the model config")
    tops = {
        name.removeprefix("sha256:"): len(content)
        for name, content in ((digest, body), (inner, config))
    }
    manifest = decode(_object(config, "the model config").get("edgepack"))
    _compare_layers(image.get("layers"), manifest)
    return digest, tops, manifest, _report(index)


def _report(index: Mapping[str, Any]) -> list[Any]:
    """Read the build's table from the index; anything but a list is ignored."""
    try:
        found = json.loads(index["annotations"][REPORT])
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _compare_layers(layers: object, manifest: Manifest) -> None:
    if not isinstance(layers, list):
        raise TrustError("the OCI manifest has no layers")
    found = set()
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(layer.get("annotations"), dict):
            raise TrustError("the OCI manifest holds a malformed layer")
        name = layer["annotations"].get(FILEPATH)
        digest = str(layer.get("digest")).removeprefix("sha256:")
        found.add((str(name), digest, str(layer.get("size"))))
    listed = {(entry.path, entry.sha256, str(entry.size)) for entry in manifest.files}
    if found != listed or len(layers) != len(listed):
        raise TrustError("the OCI layers and the manifest's files differ")


def _descriptor(
    layout: Layout, value: object, media_type: str, what: str
) -> tuple[str, memoryview]:
    """Follow an OCI descriptor to its blob, checked by size and digest."""
    if not isinstance(value, dict) or value.get("mediaType") != media_type:
        raise TrustError(f"{what} is not described as {media_type}")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise TrustError(f"{what} has no sha256 digest")
    if not isinstance(size, int) or not 0 <= size <= limits.JSON_BYTES:
        raise TrustError(f"{what} has no size, or one above {limits.JSON_BYTES} bytes")
    return digest, _checked(layout, digest.removeprefix("sha256:"), size, what)


def _checked(layout: Layout, sha256: str, size: int, what: str) -> memoryview:
    content = layout.member(f"blobs/sha256/{sha256}")
    if len(content) != size:
        raise TrustError(
            f"{what} has {len(content)} bytes, but {size} were promised; copy it again"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrustError(f"{what} does not match its digest; the bundle was altered or damaged")
    return content


def _object(content: memoryview, what: str, most: int = limits.JSON_BYTES) -> dict[str, Any]:
    if len(content) > most:
        raise TrustError(f"{what} is larger than {most} bytes")
    try:
        value = json.loads(bytes(content), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise TrustError(f"{what} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise TrustError(f"{what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value
