"""Open one variant of a bundle: its engine, its graphs, and the reader of its inputs."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from edgepack_runtime import engines
from edgepack_runtime.bundle.adapters import Adapters
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Graph, Variant
from edgepack_runtime.device.facts import check_threads, cores, probe
from edgepack_runtime.errors import DeviceError, TrustError
from edgepack_runtime.inputs import open_inputs
from edgepack_runtime.model.model import Model
from edgepack_runtime.model.prepare import compiled_folder
from edgepack_runtime.model.ranking import Choice
from edgepack_runtime.tasks import Opened


def open_variant(
    bundle: Bundle, variant: Variant, threads: int | None = None, choice: Choice | None = None
) -> Model:
    """Load one variant, whatever the device; every file is hashed before it is used.

    Raises:
        TrustError: a file is missing or differs from its digest, or a graph is not as the manifest
            describes it.
        DeviceError: the engine is not installed or cannot load a graph, or a graph needs an input
            that this runtime does not make.

    """
    check_threads(threads)
    task = bundle.manifest.task
    cache = compiled_folder(bundle, variant, probe())
    try:
        engine = engines.find(variant.engine)
    except ImportError as exc:
        raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
    with ThreadPoolExecutor(1) as pool:  # the tokenizer loads while the graphs do
        inputs = pool.submit(open_inputs, task, bundle.read)
        graphs = {}
        for graph in variant.graphs:
            files = bundle.files(variant, graph)
            try:
                session = engine.open_session(
                    files, variant, threads or cores(), cache / graph.name
                )
            except ImportError as exc:
                raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
            _compare(variant, graph, session)
            graphs[graph.name] = session
        adapters = Adapters({k: partial(bundle.read, v) for k, v in variant.adapters.items()})
        identity = _identity(bundle, variant)
        opened = Opened(task, variant, graphs, inputs.result(), adapters, identity)
        return Model(opened, choice)


def _identity(bundle: Bundle, variant: Variant) -> str:
    """Return a digest of a variant's files and of the tokenizer."""
    keys = [bundle.files(variant, graph).key for graph in variant.graphs]
    text = bundle.manifest.task.text
    keys += [bundle.manifest.file(text.tokenizer).sha256] if text else []
    return hashlib.sha256("\n".join([variant.name, *keys]).encode()).hexdigest()


def _compare(variant: Variant, graph: Graph, session: engines.Session) -> None:
    """Check that a graph has the inputs and outputs that the manifest lists."""
    for what, said, found in (
        ("takes", graph.inputs, session.inputs),
        ("gives", graph.outputs, session.outputs),
    ):
        if sorted(said) != sorted(found):
            raise TrustError(
                f"graph {graph.name!r} of {variant.name} {what} {', '.join(sorted(found))}; the "
                f"manifest says {', '.join(sorted(said)) or 'nothing'}. Build the bundle again"
            )
