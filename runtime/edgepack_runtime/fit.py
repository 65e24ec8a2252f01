"""Whether a bundle fits a device, by its manifest: before a download and before a load."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from edgepack_runtime import engines
from edgepack_runtime.bundle.manifest import Manifest, Requires, Variant
from edgepack_runtime.device.facts import Device
from edgepack_runtime.device.gpu import find_gpu
from edgepack_runtime.paths import free_bytes


def engine_installed(engine: str) -> bool:
    """Tell whether the engine's Python package is installed, without importing it.

    The package has the name of the engine.  An engine without a package can simply be imported.
    """
    if find_spec(engine) is not None:
        return True
    try:
        engines.find(engine)
    except ImportError:
        return False
    return True


@cache
def providers(engine: str) -> tuple[str, ...]:
    """List the providers of an installed engine: execution providers, or OpenVINO's devices."""
    return engines.find(engine).providers()


def why_not(variant: Variant, device: Device) -> str:
    """Say why `variant` cannot run on `device`; an empty string means that it can."""
    if lacking := unmet(variant.requires, device):
        return "; ".join(lacking)
    if variant.engine not in engines.known():  # so its name never reaches the import system
        return f"unknown engine {variant.engine!r}; this runtime has {', '.join(engines.known())}"
    if not engine_installed(variant.engine):
        return (
            f"{variant.engine} is not installed (pip install 'edgepack-runtime[{variant.engine}]')"
        )
    return "" if variant.on_cpu else _lacks_provider(variant)


def _lacks_provider(variant: Variant) -> str:
    try:
        found = providers(variant.engine)
    except (ImportError, AttributeError, RuntimeError, OSError) as exc:
        return f"{variant.engine} is installed but does not import: {exc}"
    if variant.provider not in found:
        return f"the installed {variant.engine} has no {variant.provider}"
    return ""


def misfits(manifest: Manifest, device: Device, *, folder: Path | None = None) -> list[str]:
    """List why a whole bundle does not fit a device; empty if at least one variant may run.

    Args:
        manifest: the manifest of a bundle that may not be here yet.
        device: the device it should run on.
        folder: where it will be stored, to check the room; None if it is there already.

    """
    found = _of_all(manifest, device)
    needed = sum({file.sha256: file.size for file in manifest.files}.values())
    if folder is not None and (free := free_bytes(folder)) < needed:
        found.append(f"needs {needed / 1e6:.0f} MB of disk, {free / 1e6:.0f} MB are free")
    reasons = {v.name: unmet(v.requires, device) for v in manifest.variants}
    if all(reasons.values()):
        found += [f"{name}: {'; '.join(lacking)}" for name, lacking in reasons.items()]
    return found


def why_not_each(manifest: Manifest, device: Device, *, captured: bool = False) -> dict[str, str]:
    """Say for each variant why `device` cannot run it; an empty string if it can.

    Args:
        manifest: the manifest of the bundle.
        device: where the variants should run.
        captured: the device is a file tree, so this machine's engines do not matter.

    """
    whole = "; ".join(_of_all(manifest, device))
    return {
        v.name: whole or ("; ".join(unmet(v.requires, device)) if captured else why_not(v, device))
        for v in manifest.variants
    }


def _of_all(manifest: Manifest, device: Device) -> list[str]:
    """List why no variant of a bundle fits a device."""
    other = [] if manifest.arch in (device.arch, "any") else [manifest.arch]
    return [
        *(f"needs {arch}, this is {device.arch}" for arch in other),
        *unmet(manifest.requires, device),
    ]


def unmet(requires: Requires, device: Device) -> list[str]:
    """List the requirements that `device` does not meet, in words."""
    found = []
    if requires.isa_any and not device.isa & set(requires.isa_any):
        found.append(f"needs a CPU with {' or '.join(requires.isa_any)}")
    if requires.memory_mb and device.memory_mb and device.memory_mb < requires.memory_mb:
        found.append(f"needs {requires.memory_mb} MB of memory, {device.memory_mb} MB are free")
    if requires.glibc and device.glibc and older(device.glibc, requires.glibc):
        found.append(f"needs glibc {requires.glibc}, this is {device.glibc}")
    if requires.jetpack and device.jetpack and device.jetpack not in requires.jetpack:
        found.append(f"needs JetPack {' or '.join(requires.jetpack)}, this is {device.jetpack}")
    if requires.compute_capability and (lacking := _gpu(requires.compute_capability, device)):
        found.append(lacking)
    return found


def older(version: str, than: str) -> bool:
    """Tell whether one version, of numbers and dots, is below another."""
    return _numbers(version) < _numbers(than)


def _gpu(least: str, device: Device) -> str:
    gpu = find_gpu(device.root)
    if gpu is None:
        return f"needs an NVIDIA GPU of compute capability {least}, none is visible"
    if gpu.compute_capability and older(gpu.compute_capability, least):
        return f"needs compute capability {least}, {gpu.name} has {gpu.compute_capability}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
