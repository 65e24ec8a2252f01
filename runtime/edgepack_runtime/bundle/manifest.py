"""What a bundle says of itself: the frozen dataclasses behind `FORMAT.md`.

The manifest is canonical JSON (sorted keys, no spaces, UTF-8) inside the OCI config
blob, under the key `edgepack`.  Reading is strict: an unknown key, a missing key or a
wrong type is a `TrustError`, because a device must never guess what a bundle meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.names import is_digest, is_version, safe_name, safe_path
from edgepack_runtime.bundle.strict import read_record
from edgepack_runtime.errors import TrustError

FORMAT = 1
_CPU_PROVIDERS = ("CPUExecutionProvider", "CPU", "null")
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of a bundle: where it stands for a reader, and which blob it is."""

    path: str
    """Relative to the bundle, with `/`."""
    size: int
    """Bytes."""
    sha256: str
    """Of the blob, in hexadecimal."""
    chunks: tuple[str, ...] = ()
    """The sha256 of each `CHUNK` bytes of a longer file: a download is checked as it comes."""


@dataclass(frozen=True)
class Requires:
    """What a device must have before a variant is tried on it; empty means no demand."""

    isa_any: tuple[str, ...] = ()
    """CPU flags by their Linux names; any one of them is enough."""
    memory_mb: int = 0
    """Free memory, in MB."""
    compute_capability: str = ""
    """The least, as `8.7`."""
    jetpack: tuple[str, ...] = ()
    """Major versions; any one of them is enough."""
    glibc: str = ""
    """The least, as `2.28`."""


@dataclass(frozen=True)
class Tolerance:
    """How far a device's golden outputs may stray from the float reference."""

    cosine: float
    """The least cosine similarity of the raw outputs, over single golden inputs."""
    agreement: float
    """The least share of equal decisions over all golden inputs."""


@dataclass(frozen=True)
class Graph:
    """One graph of a variant, which a task asks for by name."""

    name: str
    """`model` where there is but one."""
    files: tuple[str, ...]
    """Paths of the bundle."""
    inputs: tuple[str, ...]
    """Names, in the graph's own order."""
    outputs: tuple[str, ...]
    """Names, in the graph's own order."""


@dataclass(frozen=True)
class Variant:
    """One form of the model: an engine, a provider, a precision and its graphs."""

    name: str
    engine: str
    provider: str
    precision: str
    scheme: str
    graphs: tuple[Graph, ...]
    requires: Requires
    tolerance: Tolerance
    options: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    """{adapter: path of the bundle} of what a call may add to a language model."""

    @property
    def files(self) -> tuple[str, ...]:
        """Return the paths of the files of its graphs and its adapters, each once."""
        paths = [path for graph in self.graphs for path in graph.files]
        return tuple(dict.fromkeys([*paths, *self.adapters.values()]))

    @property
    def on_cpu(self) -> bool:
        """Tell whether it runs on the CPU, which every device has."""
        return self.provider in _CPU_PROVIDERS


@dataclass(frozen=True)
class Manifest:
    """A whole bundle."""

    format: int
    """The version of the format; see FORMAT.md."""
    name: str
    """What the bundle is called."""
    version: str
    """For people; any text."""
    release: int
    """For devices: a number that only rises."""
    target: str
    """The name of the target file."""
    arch: str
    """Of the device's CPU, as `uname -m` says it, or `any`."""
    task: Task
    """What the model answers."""
    variants: tuple[Variant, ...]
    """In the target's order of preference."""
    files: tuple[File, ...]
    """All of them, sorted by path."""
    golden: str
    """The bundle's path of the golden inputs and outputs."""
    requires: Requires = Requires()
    """What every variant needs."""
    kit: Mapping[str, str] = field(default_factory=dict)
    """{file name: sha256} of the wheels that were packed with the bundle; empty for none."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How it was built; nothing on a device depends on it."""

    def file(self, path: str) -> File:
        """Return the entry for `path`; a `TrustError` if the bundle has none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise TrustError(f"the manifest names no file {path!r}; the bundle is incomplete")

    def variant(self, name: str) -> Variant:
        """Return the variant called `name`; a `TrustError` if there is none."""
        for entry in self.variants:
            if entry.name == name:
                return entry
        raise TrustError(f"the manifest names no variant {name!r}")


def canonical_json(value: object) -> bytes:
    """Encode as the one JSON text that equal values always give (no NaN, sorted, compact)."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def encode(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain JSON values."""
    return asdict(manifest)


def decode(value: object) -> Manifest:
    """Read a manifest from plain JSON values.

    Raises:
        TrustError: a newer format, an unknown key, a missing key, a wrong type, a file
            path that is not a plain relative one, or a variant whose file is not listed.

    """
    if not isinstance(value, dict):
        raise TrustError("the manifest is not a JSON object")
    declared = value.get("format")
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
        raise TrustError(f"the manifest has no usable format number (found {declared!r})")
    if declared > FORMAT:
        raise TrustError(
            f"the bundle has format {declared}, this runtime reads up to {FORMAT}; "
            "upgrade edgepack-runtime, or rebuild with an older edgepack"
        )
    manifest: Manifest = read_record(Manifest, value, "manifest")
    _check(manifest)
    return manifest


def decode_task(value: object) -> Task:
    """Read a task from plain JSON values, as strictly as `decode` does."""
    task: Task = read_record(Task, value, "task")
    return task


def _check(manifest: Manifest) -> None:
    paths = [entry.path for entry in manifest.files]
    names = [variant.name for variant in manifest.variants]
    if len(set(paths)) != len(paths) or len(set(names)) != len(names):
        raise TrustError("the manifest lists a file or a variant twice")
    for entry in manifest.files:
        _check_file(entry)
    for name in [manifest.name, manifest.version, manifest.target, *names]:
        if not safe_name(name):
            raise TrustError(f"the manifest holds an unusable name {name!r}")
    if not manifest.variants:
        raise TrustError("the manifest lists no variant")
    for variant in manifest.variants:
        _check_graphs(variant)
    demands = [manifest.requires, *(variant.requires for variant in manifest.variants)]
    for version in [text for item in demands for text in (item.glibc, item.compute_capability)]:
        if version and not is_version(version):
            raise TrustError(f"the manifest holds an unusable version {version[:40]!r}")
    wanted = [path for variant in manifest.variants for path in variant.files]
    text = manifest.task.text
    for path in [*wanted, manifest.golden, *([text.tokenizer] if text else [])]:
        manifest.file(path)


def _check_graphs(variant: Variant) -> None:
    names = [graph.name for graph in variant.graphs]
    if not names or len(set(names)) != len(names) or not all(map(safe_name, names)):
        raise TrustError(
            f"variant {variant.name} has no graph, two of one name, or one of an unusable name"
        )
    if not all(map(safe_name, variant.adapters)):
        raise TrustError(f"variant {variant.name} has an adapter of an unusable name")


def _check_file(entry: File) -> None:
    if not safe_path(entry.path):
        raise TrustError(f"the manifest holds an unsafe path {entry.path!r}")
    digests = (entry.sha256, *entry.chunks)
    if not all(map(is_digest, digests)) or entry.size < 0:
        raise TrustError(f"the manifest holds a malformed digest or size for {entry.path!r}")
    if entry.chunks and len(entry.chunks) != -(-entry.size // CHUNK):
        raise TrustError(f"the manifest lists a wrong number of chunks for {entry.path!r}")
