"""Open one variant of a bundle: its engine, its graph, its tokenizer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from edgepack_runtime import engines
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device.facts import check_threads, cores, probe
from edgepack_runtime.errors import DeviceError
from edgepack_runtime.inputs.text import INPUTS, TextEncoder
from edgepack_runtime.model.model import Model
from edgepack_runtime.model.prepare import compiled_folder
from edgepack_runtime.model.ranking import Choice


def open_variant(
    bundle: Bundle, variant: Variant, threads: int | None = None, choice: Choice | None = None
) -> Model:
    """Load one variant, whatever the device; every file that is read is hashed first.

    Raises:
        TrustError: a file is missing or differs from its digest.
        DeviceError: the engine is not installed or cannot load the graph.

    """
    check_threads(threads)
    task = bundle.manifest.task
    content = bytes(bundle.read(task.text.tokenizer))
    files = bundle.files(variant)
    cache = compiled_folder(bundle, variant, probe())
    try:
        engine = engines.find(variant.engine)
    except ImportError as exc:
        raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
    with ThreadPoolExecutor(1) as pool:  # the tokenizer loads while the graph does
        encoder = pool.submit(TextEncoder, content, task.text)
        try:
            session = engine.open_session(files, variant, threads or cores(), cache)
        except ImportError as exc:
            raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
        if unknown := sorted(set(session.inputs) - set(INPUTS)):
            raise DeviceError(
                f"the graph of {variant.name} wants {', '.join(unknown)}, which this runtime "
                f"does not make; it makes {', '.join(INPUTS)}"
            )
        return Model(task, variant, session, encoder.result(), choice)
