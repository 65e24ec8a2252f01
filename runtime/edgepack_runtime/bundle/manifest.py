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
class Text:
    """How text becomes token ids: the facts that `tokenizer.json` does not hold."""

    tokenizer: str
    """The bundle's path of `tokenizer.json`."""
    max_length: int
    """Tokens of a text, special ones included."""
    pad_id: int
    """The token that fills a batch."""
    pad_type_id: int = 0
    """The token type of the padding."""
    padding_side: str = "right"
    """`left` or `right`."""
    truncation_side: str = "right"
    """`left` or `right`."""
    unk_id: int | None = None
    """The token of what the vocabulary lacks; None if there is none."""
    mask_id: int | None = None
    """The token that stands for a hidden one; None if there is none."""
    first_id: int | None = None
    """The token that begins a text (`[CLS]`); None if there is none."""
    cleans: bool = False
    """Whether a decoded text loses the spaces before punctuation."""


@dataclass(frozen=True)
class Image:
    """How an image becomes numbers; see `inputs/image.py`."""

    height: int
    """Pixels of the model's input."""
    width: int
    """Pixels of the model's input."""
    resize: tuple[int, ...] = ()
    """(height, width), or the shorter side alone; empty for no resizing."""
    resample: int = 2
    """How Pillow resizes, by its number: 0 nearest, 2 bilinear, 3 bicubic."""
    crop: tuple[int, ...] = ()
    """(height, width) around the middle; empty for all."""
    scale: float = 0.0
    """What the values from 0 to 255 are multiplied by; 0 leaves them."""
    mean: tuple[float, ...] = ()
    """Subtracted from red, green and blue; empty for no normalization."""
    std: tuple[float, ...] = ()
    """Divides red, green and blue."""
    bgr: bool = False
    """Whether blue comes first."""


@dataclass(frozen=True)
class Audio:
    """How a sound becomes numbers, and what a model that hears writes; see `inputs/audio.py`."""

    sampling_rate: int
    """Samples of a second."""
    normalize: bool = False
    """Whether each sound gets a mean of 0 and a variance of 1."""
    least: int = 1
    """The fewest samples that the model takes."""
    frame: int = 1
    """Samples of one output of the model."""
    blank: int = 0
    """The output that is no letter, for models that write."""
    delimiter: str = ""
    """The letter that parts words, for models that write."""


@dataclass(frozen=True)
class Writing:
    """How a language model writes: the facts that its tokenizer and graphs do not hold."""

    context: int
    """Positions that prompt and answer share."""
    eos: tuple[int, ...]
    """Tokens that end an answer."""
    start: tuple[int, ...] = ()
    """Tokens that every answer starts with, where answers do not go on with the input."""
    template: str = ""
    """The chat template, Jinja2; empty if it has none."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the template names, as `bos_token`."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings, from `generation_config.json`."""


@dataclass(frozen=True)
class Task:
    """What the model answers, to which kinds of input, and with which words."""

    name: str
    """A module of `edgepack_runtime.tasks`."""
    text: Text | None = None
    """None for a model that takes no text."""
    labels: tuple[str, ...] = ()
    """By the index of the output."""
    problem_type: str = ""
    """As a transformers config names it; empty if it does not."""
    activation: str = ""
    """What makes a score of a ranking model's output: `sigmoid` or `none`; empty if unsaid."""
    pooling: str = ""
    """The mode of sentence-transformers: `mean`, `cls`, `max`; empty for none."""
    normalize: bool = False
    """Whether embeddings are scaled to length 1."""
    writing: Writing | None = None
    """None for a model that writes no text."""
    image: Image | None = None
    """None for a model that takes no image."""
    audio: Audio | None = None
    """None for a model that takes no sound."""


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
