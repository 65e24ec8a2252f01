"""Load a bundle on this device: rank its variants, open the best one, prove it."""

from __future__ import annotations

import logging
from pathlib import Path

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import check_threads, probe
from edgepack_runtime.errors import DeviceError
from edgepack_runtime.fit import unmet
from edgepack_runtime.gc_pause import collector_paused
from edgepack_runtime.model.background import prepare_behind
from edgepack_runtime.model.model import Model
from edgepack_runtime.model.prepare import distrust
from edgepack_runtime.model.ranking import Choice, named, rank
from edgepack_runtime.model.selftest import selftest
from edgepack_runtime.model.variants import open_variant
from edgepack_runtime.store.find import open_bundle

_log = logging.getLogger(__name__)


@collector_paused()
def load(  # noqa: PLR0913 (each is a choice of its own)
    path: str | Path | Bundle,
    *,
    variant: str | None = None,
    threads: int | None = None,
    any_device: bool = False,
    allow_fallback: bool = False,
    prepare: bool = False,
    workload: str | None = None,
) -> Model:
    """Load a bundle on this device.

    Args:
        path: a bundle folder, an `.epk`, an open `Bundle`, or the folder of a store, to load the
            release that runs there.
        variant: the variant to run.  By default, the best one that this device can run: the fastest
            one measured here (`edgepack-runtime tune`), else the first in the target's order.
        threads: CPU threads.  By default, as many as `edgepack-runtime tune` found best, else every
            processor that this process may use.
        any_device: try a bundle that was built for another kind of machine.
        allow_fallback: if the best variant does not load, try the next instead of failing.
        prepare: compile better variants (TensorRT, GPU, NPU) in the background, and switch to one
            once it has passed the golden inputs; ignored if `variant` names one.
        workload: what the model will do most; the variant is picked that was measured fastest in
            it.  Language models know `chat`, `long-prompt` and `long-answer`; other tasks know the
            sizes that `edgepack-runtime tune` shows.

    Raises:
        InputError: there is no bundle at `path`, or no such variant or workload.
        TrustError: the bundle is truncated, altered, malformed or of a newer format.
        DeviceError: this device cannot run it; the message lists why, variant by variant.
        SelfTestError: it runs, but strays from the first golden output.

    """
    check_threads(threads)
    bundle = path if isinstance(path, Bundle) else open_bundle(path)
    device = probe()
    if lacking := [] if any_device else unmet(bundle.manifest.requires, device):
        raise DeviceError(f"{bundle.path} (for {bundle.manifest.target}) {'; '.join(lacking)}")
    candidates, rejected = rank(
        bundle, device, any_device=any_device, uncompiled=variant is not None, workload=workload
    )
    best_threads = measured.load(bundle.digest, device).threads
    if variant is not None:
        candidates = [named(bundle, variant, candidates, rejected)]
    for candidate, reason in candidates:
        try:
            count = threads or best_threads.get(candidate.name)
            model = open_variant(bundle, candidate, count, Choice(candidate, reason, rejected))
        except DeviceError as exc:
            rejected[candidate.name] = str(exc)
            distrust(bundle, candidate, device)
            if not allow_fallback:
                raise DeviceError(
                    f"{bundle.path}: variant {candidate.name} does not load: {exc}. "
                    "Pass allow_fallback=True (--allow-fallback) to accept the next best"
                ) from exc
        else:
            selftest(bundle, model, limit=1)
            _log.info("%s runs %s on %s: %s", bundle.path, candidate.name, model.provider, reason)
            if prepare and variant is None:
                prepare_behind(bundle, model, threads, any_device=any_device, workload=workload)
            return model
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    raise DeviceError(
        f"{bundle.path} (built for {bundle.manifest.target}) does not run here: {listed}"
    )
