"""Choose the variant to run on this device: golden outputs first, then speed, memory, energy."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import cores, probe
from edgepack_runtime.errors import DeviceError, EdgepackError, SelfTestError
from edgepack_runtime.fit import unmet
from edgepack_runtime.model.selftest import read_golden, selftest
from edgepack_runtime.tune.energy import find_meter
from edgepack_runtime.tune.latency import measure_times
from edgepack_runtime.tune.memory import peak_memory

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

Times = dict[str, list[float]]
_log = logging.getLogger(__name__)


def tune(bundle: Bundle, *, seconds: float = 1.0, threads: int | None = None) -> measured.Record:
    """Self-test and measure every variant that runs on this device, at several thread counts.

    A variant that strays from its golden outputs is left out, with a warning.

    Args:
        bundle: what to measure.
        seconds: about how long each variant may take in each cell.
        threads: only this number of CPU threads.

    Raises:
        DeviceError: no variant runs here.
        SelfTestError: every variant that runs gives wrong answers.

    """
    sound = _sound_variants(bundle)
    samples = read_golden(bundle).inputs
    times: dict[tuple[str, int], Times] = {}
    for count in [threads] if threads else thread_counts(cores()):
        # One number of threads at a time: a small device holds each variant once, not three times.
        fit = [v for v in sound.values() if v.on_cpu or count == (threads or cores())]
        models = {variant.name: _open(bundle, variant, count) for variant in fit}
        for name, found in measure_times(models, samples, seconds=seconds).items():
            times[name, count] = found
        del models
    medians = {
        f"{name}@{count}": {cell: round(median(found) * 1000, 3) for cell, found in row.items()}
        for (name, count), row in times.items()
    }
    best: dict[str, int] = {}
    for name, count in sorted(times, key=lambda key: measured.score(f"{key[0]}@{key[1]}", medians)):
        best.setdefault(name, count)
    energy = _energy(bundle, [(sound[name], count) for name, count in best.items()], seconds)
    details = {
        name: {
            **{f"p95 {cell}": _p95(found) for cell, found in times[name, count].items()},
            **_memory(bundle, name, count),
            **energy.get(name, {}),
        }
        for name, count in best.items()
    }
    latency = {name: medians[f"{name}@{count}"] for name, count in best.items()}
    return measured.Record(latency, best, details)


def thread_counts(available: int) -> list[int]:
    """Return the thread counts worth trying: one, half of the processors, and all of them."""
    return sorted({1, max(1, available // 2), available})


def _sound_variants(bundle: Bundle) -> dict[str, Variant]:
    """Return the variants that load here and reproduce their golden outputs."""
    from edgepack_runtime.model.ranking import rank
    from edgepack_runtime.model.variants import open_variant

    device = probe()
    if lacking := unmet(bundle.manifest.requires, device):
        raise DeviceError(f"{bundle.path} (for {bundle.manifest.target}) {'; '.join(lacking)}")
    candidates, rejected = rank(bundle, device)
    found: dict[str, Variant] = {}
    failure: SelfTestError | None = None
    for variant, _ in candidates:
        try:
            selftest(bundle, open_variant(bundle, variant))
            found[variant.name] = variant
        except DeviceError as exc:
            rejected[variant.name] = str(exc)
            _log.warning("%s is not measured: %s", variant.name, exc)
        except SelfTestError as exc:
            failure = exc
            _log.warning("%s is left out: %s", variant.name, exc)
    if found:
        return found
    if failure is not None:
        raise failure
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    raise DeviceError(f"{bundle.path}: nothing to measure: {listed}")


def _open(bundle: Bundle, variant: Variant, threads: int) -> Model:
    from edgepack_runtime.model.variants import open_variant

    return open_variant(bundle, variant, threads)


def _memory(bundle: Bundle, name: str, threads: int) -> dict[str, float]:
    """Return {"memory_mb": peak of a separate process}; empty if it cannot be measured."""
    try:
        return {"memory_mb": round(peak_memory(bundle.path, name, threads), 1)}
    except EdgepackError as exc:
        _log.warning("memory of %s is not measured: %s", name, exc)
        return {}


def _energy(
    bundle: Bundle, chosen: Sequence[tuple[Variant, int]], seconds: float
) -> dict[str, dict[str, float]]:
    """Return {variant: {"energy_mj": millijoules per answer}} in the task's first cell.

    This is the energy of the whole board or package, including the idle share; empty without a
    meter.
    """
    meter = find_meter()
    if meter is None:
        return {}
    found = {}
    with closing(meter):
        for variant, count in chosen:
            model = _open(bundle, variant, count)
            samples = read_golden(bundle).inputs
            inputs, options = model.cell(model.cells[0], samples)
            inputs = inputs or samples[:1]  # the model is too small for the cell
            model(inputs, **options)
            before, answers, end = meter.joules(), 0, time.perf_counter() + seconds
            while not answers or time.perf_counter() < end:
                model(inputs, **options)
                answers += 1
            joules = (meter.joules() - before) / answers
            found[variant.name] = {"energy_mj": round(joules * 1000, 3)}
    return found


def _p95(times: Sequence[float]) -> float:
    """Return the 95th percentile of seconds, in milliseconds."""
    return round(sorted(times)[min(len(times) - 1, int(len(times) * 0.95))] * 1000, 3)
