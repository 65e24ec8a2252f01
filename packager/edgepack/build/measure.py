"""Measure a bundle's variants on the build host, next to the float model they were made from."""

from __future__ import annotations

import logging

from edgepack.build.made import Made
from edgepack.export import open_reference
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import probe
from edgepack_runtime.errors import DeviceError
from edgepack_runtime.model.ranking import rank
from edgepack_runtime.model.selftest import read_golden, selftest
from edgepack_runtime.model.variants import open_variant
from edgepack_runtime.tune import latency

BASELINE = "float32"
_log = logging.getLogger(__name__)
_SECONDS = (
    0.15  # for each model and cell; on a device, `edgepack-runtime tune` measures more precisely
)


def measure(bundle: Bundle, made: Made) -> dict[str, dict[str, float]]:
    """Return {variant: {cell: ms}} and store it, so that `load` uses it on this machine.

    An earlier measurement on this machine is returned as it is.  The result is empty if the bundle
    is for another kind of machine.
    """
    device = probe()
    if known := measured.load(bundle.digest, device).latency_ms:
        return {name: dict(cells) for name, cells in known.items()}
    try:
        fit, _ = rank(bundle, device)
    except DeviceError:
        return {}
    models = {variant.name: open_variant(bundle, variant) for variant, _ in fit}
    if not models:
        return {}
    for model in models.values():
        selftest(bundle, model)
    models[BASELINE] = open_reference(made.tokenizer, made.export, made.plan.reference)
    found = latency.measure(models, read_golden(bundle).inputs, seconds=_SECONDS)
    try:
        measured.save(bundle.digest, device, measured.Record(found))
    except OSError as exc:
        _log.warning("the measurement cannot be stored: %s", exc)
    return found
