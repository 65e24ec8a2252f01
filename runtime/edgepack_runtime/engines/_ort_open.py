"""From the files of a graph to a session of ONNX Runtime, through the cache.

A graph may have its weights in a second file, `*.data`.  These are mapped, not copied.  The cache
holds the graph as it was optimized for this CPU, and such weights as its kernels want them, which
are mapped as well: a language model then takes little memory beside its file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime as ort  # noqa: TID253 (only imported when a bundle needs it)

from edgepack_runtime.engines import _kept as kept
from edgepack_runtime.engines import only
from edgepack_runtime.engines._onnx_graph import check_alone
from edgepack_runtime.errors import DeviceError
from edgepack_runtime.paths import free_bytes

CPU = "CPUExecutionProvider"
_KEPT = "onnxruntime.onnx"
_KEPT_DATA = "onnxruntime.data"
_MOST_KEPT = 128 << 20  # bytes; writing a larger graph takes memory that a small device lacks
_ROOM = 4  # times the weights' size: the cache holds them twice, and leaves as much free
# Bytes of a weight that goes into the second file.  All inputs of a product must go there, or ONNX
# Runtime packs them wrongly; the shapes that it must see in the graph are smaller.
_LEAST_APART = "64"
_ALIGNED = 64  # bytes; ONNX Runtime writes packed weights wherever they come to lie
_PLACES = re.compile(rb"\x0a\x06offset\x12.(\d+)|\|(\d+);\d+;\d", re.DOTALL)
_ERROR_ONLY = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A graph and the files of its weights."""

    graph: bytes
    """The serialized `ModelProto`."""
    weights: Mapping[str, memoryview] = field(default_factory=dict)
    """Files of weights by the names that the graph has for them."""


def read(files: Mapping[str, memoryview]) -> Source:
    """Read and check the one `.onnx` file, and map the weights beside it.

    Raises:
        TrustError: the graph names another file.

    """
    own = only(files, ".onnx")
    content, folder = files[own], PurePosixPath(own).parent
    weights = {
        str(PurePosixPath(name).relative_to(folder)): _aligned(files[name])
        for name in files
        if name.endswith(".data")
    }
    check_alone(content, {name: len(held) for name, held in weights.items()})
    return Source(bytes(content), weights)


def _aligned(content: memoryview) -> memoryview:
    """Return the same bytes where kernels can read them; those of a mapped bundle lie so."""
    import numpy as np

    array = np.frombuffer(content, dtype=np.uint8)
    if array.ctypes.data % _ALIGNED == 0:
        return content
    room = np.empty(len(array) + _ALIGNED, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGNED
    found = room[start : start + len(array)]
    found[:] = array
    return found.data


def options_for(threads: int) -> ort.SessionOptions:
    """Return the options of every session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def make(
    source: Source, options: ort.SessionOptions, providers: Sequence[Any]
) -> ort.InferenceSession:
    """Open a session; its weights must stay mapped as long as it lives.

    Raises:
        DeviceError: the graph does not load.

    """
    try:
        if source.weights:
            options.add_session_config_entry(
                "session.use_external_initializer_file_buffers_directly", "1"
            )
            options.add_external_initializers_from_files_in_memory(
                list(source.weights),
                list(source.weights.values()),
                [len(held) for held in source.weights.values()],
            )
        return ort.InferenceSession(source.graph, options, providers=providers, enable_fallback=0)
    except AttributeError as exc:
        raise DeviceError(
            f"onnxruntime {ort.__version__} cannot map weights; install 1.24 or newer"
        ) from exc
    except Exception as exc:
        raise DeviceError(f"onnxruntime {ort.__version__} cannot load the graph: {exc}") from exc


def open_on_cpu(
    files: Mapping[str, memoryview], threads: int, cache: Path | None
) -> tuple[ort.InferenceSession, object]:
    """Load the optimized graph from the cache, or optimize the graph and cache it.

    An optimized graph loads in half the time.  Returns the session, and what must outlive it.
    """
    if cache is not None and (session := _from_cache(cache, threads)) is not None:
        return session, None
    source = read(files)
    if cache is not None and _is_kept(source, cache):
        session = _make_and_keep(source, threads, cache)
        if session is not None and source.weights:  # mapped, it takes less memory
            session = _from_cache(cache, threads) or session
        if session is not None:
            return session, source.weights
    return make(source, options_for(threads), [CPU]), source.weights


def _is_kept(source: Source, cache: Path) -> bool:
    if not source.weights:
        return len(source.graph) <= _MOST_KEPT
    size = sum(map(len, source.weights.values()))
    return free_bytes(cache) > _ROOM * size


def _from_cache(cache: Path, threads: int) -> ort.InferenceSession | None:
    content = kept.read(cache / _KEPT)
    if content is None:
        return None
    options = options_for(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if _KEPT_DATA.encode() in content:
        if not kept.is_whole(cache / _KEPT_DATA):
            return None
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(cache.absolute())
        )
    with suppress(DeviceError):  # cached by a build that only looked the same
        return make(Source(content), options, [CPU])
    return None


def _is_aligned(graph: bytes) -> bool:
    """Tell whether all weights that a cached graph maps lie where kernels can read them."""
    return not any(int(a or b) % _ALIGNED for a, b in _PLACES.findall(graph))


def _make_and_keep(source: Source, threads: int, cache: Path) -> ort.InferenceSession | None:
    """Make the session and cache the graph it optimized for this CPU; None if that fails."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as name:
            made = Path(name)
            options = options_for(threads)
            options.optimized_model_filepath = str(made / _KEPT)
            if source.weights:
                prefix = "session.optimized_model_external_initializers"
                options.add_session_config_entry(f"{prefix}_file_name", _KEPT_DATA)
                options.add_session_config_entry(f"{prefix}_min_size_in_bytes", _LEAST_APART)
                options.add_session_config_entry(
                    "session.save_external_prepacked_constant_initializers", "1"
                )
            session = make(source, options, [CPU])
            if not _is_aligned((made / _KEPT).read_bytes()):
                return session
            with suppress(OSError):
                for file in sorted(made.iterdir()):  # the weights first
                    kept.keep(file, cache / file.name)
            return session
    except (OSError, DeviceError) as exc:
        _log.info("the optimized graph is not cached: %s", exc)
    return None
