"""Compile a bundle's variants on the device before they are needed.

An engine of TensorRT, or a plan for a GPU or NPU, takes from seconds to many minutes to build.
Such a variant says so (`prepare` in its options), and `load` leaves it alone until it stands in
the cache and has passed its golden inputs here.  Meanwhile the best of the others answers.

What is compiled is kept by content and by the identity of this machine: another driver or
engine is another folder, and the old one is removed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgepack_runtime import tuned
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.device import Device, probe
from edgepack_runtime.fit import why_not
from edgepack_runtime.identity import short
from edgepack_runtime.manifest import Variant
from edgepack_runtime.paths import cache_folder, write_whole

_POLL = 0.2
Tick = Callable[[str, float], None]


def needs_preparing(variant: Variant) -> bool:
    """Tell whether a variant must be compiled before `load` picks it."""
    return variant.options.get("prepare") is True


def compiled_folder(bundle: Bundle, variant: Variant, device: Device) -> Path:
    """Return where the compiled form of a variant is kept for this machine."""
    return _content_folder(bundle, variant) / short(device, variant.engine)


def prepared(bundle: Bundle, variant: Variant, device: Device) -> bool:
    """Tell whether a variant was compiled and passed its golden inputs on this machine."""
    try:
        kept = json.loads(_mark(bundle, variant, device).read_text())
    except (OSError, ValueError):
        return False
    return bool(kept == {"digest": bundle.digest, "variant": variant.name})


def prepare(bundle: Bundle, tick: Tick | None = None) -> dict[str, str]:
    """Compile and self-test every variant that needs it and fits.

    Args:
        bundle: what to prepare.
        tick: called with the variant's name and the seconds it has taken, a few times a second.

    Returns:
        {variant: "ready", or why it is not}.

    """
    device = probe()
    found: dict[str, str] = {}
    for variant in filter(needs_preparing, bundle.manifest.variants):
        if lacking := why_not(variant, device):
            found[variant.name] = lacking
            continue
        if not prepared(bundle, variant, device):
            found[variant.name] = _compile(bundle, variant, device, tick)
            tuned.forget(bundle.digest)  # an election without this variant
        found[variant.name] = found.get(variant.name) or "ready"
        _prune(bundle, variant, device)
    return found


def _compile(bundle: Bundle, variant: Variant, device: Device, tick: Tick | None) -> str:
    """Compile in a process of its own, which may crash or be killed; say what went wrong."""
    start = time.monotonic()
    command = [sys.executable, "-m", "edgepack_runtime", "selftest", str(bundle.path),
               "--variant", variant.name, "--any-device"]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603 (our own program)
    with child:
        while child.poll() is None:
            if tick:
                tick(variant.name, time.monotonic() - start)
            time.sleep(_POLL)
        assert child.stderr  # noqa: S101 (a pipe was asked for)
        said = child.stderr.read().strip()
    if child.returncode:
        return said.removeprefix("error: ") or f"the compiler died ({child.returncode})"
    mark = json.dumps({"digest": bundle.digest, "variant": variant.name})
    write_whole(_mark(bundle, variant, device), mark.encode())
    return ""


def _prune(bundle: Bundle, variant: Variant, device: Device) -> None:
    """Remove what was compiled from these files for another driver or engine version."""
    current = compiled_folder(bundle, variant, device)
    for path in _siblings(current):
        shutil.rmtree(path, ignore_errors=True)


def _siblings(current: Path) -> Iterator[Path]:
    if current.parent.is_dir():
        yield from (path for path in current.parent.iterdir() if path.name != current.name)


def _mark(bundle: Bundle, variant: Variant, device: Device) -> Path:
    name = f"{bundle.digest.removeprefix('sha256:')}-{variant.name}.ready"
    return compiled_folder(bundle, variant, device) / name


def _content_folder(bundle: Bundle, variant: Variant) -> Path:
    return cache_folder() / "compiled" / bundle.files(variant).key
