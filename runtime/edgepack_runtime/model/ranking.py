"""Which variant of a bundle runs on a device, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgepack_runtime import tasks
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device import measured as tuned
from edgepack_runtime.device.facts import Device
from edgepack_runtime.errors import DeviceError, InputError
from edgepack_runtime.fit import why_not
from edgepack_runtime.model.prepare import needs_preparing, prepared


@dataclass(frozen=True)
class Choice:
    """Which variant was picked."""

    variant: Variant
    """The variant that was picked."""
    reason: str
    """Why it was picked."""
    rejected: Mapping[str, str]
    """Why the others were not: {name: reason}."""


def rank(
    bundle: Bundle,
    device: Device,
    *,
    any_device: bool = False,
    uncompiled: bool = False,
    workload: str | None = None,
) -> tuple[list[tuple[Variant, str]], dict[str, str]]:
    """Order the variants that `device` can run, each with its reason; give reasons for the others.

    Args:
        bundle: the bundle whose variants are ranked.
        device: where they should run.
        any_device: ignore the architecture that the bundle was built for.
        uncompiled: include variants that must be compiled first and were not.
        workload: the cell of the task that counts; all of them by default.

    Raises:
        DeviceError: the bundle was built for another architecture.
        InputError: the task has no such cell.

    """
    manifest = bundle.manifest
    if manifest.arch not in (device.arch, "any") and not any_device:
        raise DeviceError(
            f"{bundle.path} was built for {manifest.target} ({manifest.arch}), "
            f"this is {device.arch}; build it for this machine (edgepack build --target native), "
            "or pass any_device=True (--any-device) to try the variants that could run"
        )
    rejected = {v.name: why for v in manifest.variants if (why := why_not(v, device))}
    rejected |= {
        v.name: f"not compiled here yet (edgepack-runtime prepare {bundle.path})"
        for v in manifest.variants
        if v.name not in rejected
        and not uncompiled
        and needs_preparing(v)
        and not prepared(bundle, v, device)
    }
    fit = [v for v in manifest.variants if v.name not in rejected]
    measured, told = _measured(bundle, device, workload)
    if not measured:
        return [
            (v, f"first of {manifest.target} that fits, not measured here") for v in fit
        ], rejected
    fit.sort(key=lambda v: tuned.score(v.name, measured))
    return [
        (v, f"measured here, {tuned.score(v.name, measured):.2f}× the fastest{told}") for v in fit
    ], rejected


def _measured(bundle: Bundle, device: Device, workload: str | None) -> tuple[tuned.Latencies, str]:
    """Return what was measured here, of the workload alone if it was, and how to say which."""
    measured = tuned.load(bundle.digest, device).latency_ms
    if workload is None:
        return measured, ""
    task = bundle.manifest.task.name
    if workload not in (cells := tasks.find(task).CELLS):
        raise InputError(f"{task} has no workload {workload!r}; it has {', '.join(cells)}")
    own = {name: {workload: row[workload]} for name, row in measured.items() if workload in row}
    return (own, f" for {workload}") if own else (measured, "")


def named(
    bundle: Bundle, name: str, fit: list[tuple[Variant, str]], rejected: Mapping[str, str]
) -> tuple[Variant, str]:
    """Return the variant that was asked for by name.

    Raises:
        DeviceError: it does not run here.
        InputError: the bundle has none of that name.

    """
    for candidate, _ in fit:
        if candidate.name == name:
            return candidate, "asked for"
    if name in rejected:
        raise DeviceError(f"{bundle.path}: variant {name}: {rejected[name]}")
    names = ", ".join(v.name for v in bundle.manifest.variants)
    raise InputError(f"{bundle.path} has no variant {name!r}; it has {names}")
