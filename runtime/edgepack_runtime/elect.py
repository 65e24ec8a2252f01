"""Elect the variant to run on this device: golden outputs first, then speed, memory, energy."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from edgepack_runtime import tuned
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.device import cores, probe
from edgepack_runtime.energy import find_meter
from edgepack_runtime.errors import DeviceError, SelfTestError
from edgepack_runtime.fit import on_cpu
from edgepack_runtime.latency import CELLS, measure_times, text_of
from edgepack_runtime.manifest import Variant
from edgepack_runtime.memory import peak_memory
from edgepack_runtime.selftest import read_golden, selftest

if TYPE_CHECKING:
    from edgepack_runtime.model import Model

_log = logging.getLogger(__name__)


def tune(bundle: Bundle, *, seconds: float = 1.0, threads: int | None = None) -> tuned.Record:
    """Self-test and measure every variant that runs on this device, at several thread counts.

    A variant that strays from its golden outputs is left out, with a warning.

    Args:
        bundle: what to measure.
        seconds: about how long each variant may take in each cell.
        threads: only this number of CPU threads.

    Raises:
        DeviceError: no variant runs here.
        SelfTestError: those that run all give other answers than they should.

    """
    sound = _sound_variants(bundle)
    models: dict[tuple[str, int], Model] = {}
    for variant in sound.values():
        counts = [threads or cores()] if threads or not on_cpu(variant) else thread_counts(cores())
        models |= {(variant.name, n): _open(bundle, variant, n) for n in counts}
    texts = read_golden(bundle).texts
    named = {f"{name}@{count}": model for (name, count), model in models.items()}
    times = measure_times(named, texts, seconds=seconds)
    medians = {
        key: {cell: round(median(found) * 1000, 3) for cell, found in row.items()}
        for key, row in times.items()
    }
    best: dict[str, int] = {}
    for name, count in sorted(models, key=lambda key: tuned.score(f"{key[0]}@{key[1]}", medians)):
        best.setdefault(name, count)
    energy = _energy({name: models[name, count] for name, count in best.items()}, texts, seconds)
    details = {
        name: {
            **{f"p95 {cell}": _p95(found) for cell, found in times[f"{name}@{count}"].items()},
            "memory_mb": round(peak_memory(bundle.path, name, count), 1),
            **energy.get(name, {}),
        }
        for name, count in best.items()
    }
    latency = {name: medians[f"{name}@{count}"] for name, count in best.items()}
    return tuned.Record(latency, best, details)


def thread_counts(available: int) -> list[int]:
    """Return the numbers of threads worth trying: one, half and all of the processors."""
    return sorted({1, max(1, available // 2), available})


def _sound_variants(bundle: Bundle) -> dict[str, Variant]:
    """Return the variants that load here and reproduce their golden outputs."""
    from edgepack_runtime.model import open_variant, rank

    candidates, rejected = rank(bundle, probe())
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
    from edgepack_runtime.model import open_variant

    return open_variant(bundle, variant, threads)


def _energy(
    models: Mapping[str, Model], texts: Sequence[str], seconds: float
) -> dict[str, dict[str, float]]:
    """Return {variant: {"energy_mj": millijoules an answer}} of one text of 16 tokens.

    The whole board's or package's energy, idle share included; empty without a meter.
    """
    meter = find_meter()
    if meter is None:
        return {}
    found = {}
    for name, model in models.items():
        text = text_of(model.encoder, texts, min(CELLS[0][0], model.task.text.max_length))
        model(text)
        before, answers, end = meter.joules(), 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            model(text)
            answers += 1
        found[name] = {"energy_mj": round((meter.joules() - before) / answers * 1000, 3)}
    meter.close()
    return found


def _p95(times: Sequence[float]) -> float:
    """Return the 95th percentile of seconds, in milliseconds."""
    return round(sorted(times)[min(len(times) - 1, int(len(times) * 0.95))] * 1000, 3)
