"""Write a bundle: an OCI image layout, in a folder or one tar, always with the same bytes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle import bundle as oci
from edgepack_runtime.bundle.manifest import CHUNK, File, Manifest, canonical_json, encode
from edgepack_runtime.errors import EdgepackError, InputError

Member = bytes | Path  # content of an archive: bytes, or the file that holds them
_WEIGHTS = (".onnx", ".data", ".bin", ".xml")


@dataclass(frozen=True)
class Content:
    """The files of a bundle by path; equal files become one blob."""

    files: Mapping[str, Member]

    def entries(self) -> tuple[File, ...]:
        """Hash every file, by path."""
        return tuple(_entry(name, path) for name, path in sorted(self.files.items()))


def write_bundle(
    manifest: Manifest,
    content: Content,
    path: Path,
    *,
    layout: str,
    report: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write a bundle to `path`, whole or not at all; return its digest.

    Args:
        manifest: its `files` are the entries of `content`.
        content: the files.
        path: the `.epk` file or folder to make; an older one is replaced.
        layout: `epk` or `folder`.
        report: what was measured on this host.  It is stored next to the manifest, not in it, so
            that the same plan gives the same digest wherever it is built.

    Raises:
        EdgepackError: the disk is full or `path` cannot be written.
        InputError: `path` is a folder that is not a bundle.

    """
    refuse_foreign(path)
    members, digest = _members(manifest, content, report)
    with _in_place_of(path) as work:
        if layout == "epk":
            _write_archive(members, work)
        else:
            _write_folder(members, work)
    return digest


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end, its content replaces `path` in one step."""
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield work
        replace_bundle(work, path)
    except OSError as exc:
        raise EdgepackError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        shutil.rmtree(work, ignore_errors=True)
        work.unlink(missing_ok=True)


def _members(
    manifest: Manifest, content: Content, report: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Member], str]:
    """Return every member of the layout by name, and the digest of the OCI manifest."""
    blobs: dict[str, Member] = {}

    def add(value: bytes, media_type: str) -> dict[str, Any]:
        sha256 = hashlib.sha256(value).hexdigest()
        blobs[f"blobs/sha256/{sha256}"] = value
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(value)}

    layers = [_layer(entry) for entry in manifest.files]
    for entry in manifest.files:
        blobs[f"blobs/sha256/{entry.sha256}"] = content.files[entry.path]
    config = add(canonical_json(_model_config(manifest)), oci.CONFIG_TYPE)
    image = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST_TYPE,
        "artifactType": oci.ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
    }
    described = add(canonical_json(image), oci.MANIFEST_TYPE)
    described["artifactType"] = oci.ARTIFACT_TYPE
    described["annotations"] = {"org.opencontainers.image.ref.name": manifest.version}
    index: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.INDEX_TYPE,
        "manifests": [described],
    }
    if report:
        index["annotations"] = {oci.REPORT: canonical_json(list(report)).decode()}
    members: dict[str, Member] = {
        "oci-layout": canonical_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": canonical_json(index),
        **dict(sorted(blobs.items())),
    }
    return members, described["digest"]


def _layer(entry: File) -> dict[str, Any]:
    name = entry.path.rpartition("/")[2]
    if name.endswith(_WEIGHTS):
        media_type = oci.WEIGHT_TYPE
    elif name.endswith(".json"):
        media_type = oci.WEIGHT_CONFIG_TYPE
    else:
        media_type = oci.DOC_TYPE
    return {
        "mediaType": media_type,
        "digest": f"sha256:{entry.sha256}",
        "size": entry.size,
        "annotations": {oci.FILEPATH: entry.path},
    }


def _model_config(manifest: Manifest) -> dict[str, Any]:
    """Combine what any ModelPack reader understands with our own manifest."""
    first = manifest.variants[0]
    return {
        "descriptor": {"name": manifest.name, "version": manifest.version},
        "config": {"format": first.engine, "precision": first.precision},
        "modelfs": {
            "type": "layers",
            "diffIds": [f"sha256:{entry.sha256}" for entry in manifest.files],
        },
        "edgepack": encode(manifest),
    }


def _entry(name: str, member: Member) -> File:
    whole, chunks, size = hashlib.sha256(), [], 0
    with io.BytesIO(member) if isinstance(member, bytes) else member.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            whole.update(chunk)
            size += len(chunk)
            chunks.append(hashlib.sha256(chunk).hexdigest())
    listed = tuple(chunks) if len(chunks) > 1 else ()
    return File(name, size, whole.hexdigest(), listed)


def write_archive(members: Mapping[str, Member], path: Path) -> None:
    """Write a tar, whole or not at all, with the same bytes for the same members.

    Raises:
        EdgepackError: the disk is full or `path` cannot be written.

    """
    if path.is_dir():
        raise EdgepackError(f"cannot write {path}: it is a folder")
    with _in_place_of(path) as work:
        work.parent.mkdir(parents=True, exist_ok=True)
        _write_archive(members, work)


def _write_archive(members: Mapping[str, Member], path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            if isinstance(value, bytes):
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
            else:
                info.size = value.stat().st_size
                with value.open("rb") as stream:
                    archive.addfile(info, stream)
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _write_folder(members: Mapping[str, Member], path: Path) -> None:
    for name, value in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            file.write_bytes(value)
        else:
            shutil.copyfile(value, file)


def unpack_bundle(bundle: oci.Bundle, folder: Path) -> list[str]:
    """Write the files of a bundle under their names; return the names.

    Raises:
        InputError: the folder is not empty.
        TrustError: a file is missing or altered.

    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another folder")
    for entry in bundle.manifest.files:  # their paths were checked when the bundle was opened
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.read(entry.path))
    return [entry.path for entry in bundle.manifest.files]


def refuse_foreign(path: Path) -> None:
    """Raise an `InputError` if `path` is a folder but not a bundle."""
    if path.is_dir() and not (path / "oci-layout").is_file():
        raise InputError(
            f"{path} is a folder, but not a bundle, so it is left alone; choose another -o"
        )


def replace_bundle(work: Path, path: Path) -> None:
    """Put `work` in the place of `path`, which may be a file, a folder or nothing."""
    if not path.is_dir():
        work.replace(path)
        return
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(old)
    try:
        work.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)
