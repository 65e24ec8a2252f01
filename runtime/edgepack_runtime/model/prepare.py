"""Compile a bundle's variants on the device before they are needed.

A TensorRT engine, or a plan for a GPU or NPU, takes from seconds to many minutes to build.  Such a
variant says so (`prepare` in its options), and `load` does not pick it until it is in the cache and
has passed its golden inputs here.  Until then the best of the others answers.

A compiled variant is cached by its content and by what it depends on in this machine: another
driver or engine means another folder, and the old folder is removed.  One process compiles at a
time.  The mark of a compiled variant holds the digests of its files, so files torn by a power cut
are made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import Device, probe
from edgepack_runtime.device.identity import compiled_for
from edgepack_runtime.fit import why_not
from edgepack_runtime.paths import cache_folder, of_its_own, write_whole

_POLL = 0.2
_MARK = ".prepared"
_MOST_SAID = 2000
Tick = Callable[[str, float], None]


def needs_preparing(variant: Variant) -> bool:
    """Tell whether a variant must be compiled before `load` picks it."""
    return variant.options.get("prepare") is True


def compiled_folder(bundle: Bundle, variant: Variant, device: Device) -> Path:
    """Return where the compiled form of a variant is cached for this machine."""
    key = bundle.files(variant).key
    return cache_folder() / "compiled" / key / compiled_for(variant, device)


def forget(gone: Iterable[Bundle], stay: Iterable[Bundle]) -> None:
    """Remove what was compiled from the releases in `gone`, unless one in `stay` needs it too."""
    wanted, old = (
        {bundle.files(variant).key for bundle in bundles for variant in bundle.manifest.variants}
        for bundles in (stay, gone)
    )
    for key in old - wanted:
        shutil.rmtree(cache_folder() / "compiled" / key, ignore_errors=True)


def prepared(bundle: Bundle, variant: Variant, device: Device) -> bool:
    """Tell whether a variant was compiled and has passed its golden inputs on this machine."""
    return _said(bundle, variant, device) == ""


def distrust(bundle: Bundle, variant: Variant, device: Device) -> None:
    """Forget that a variant was compiled, because it does not load; `prepare` compiles it again."""
    with suppress(OSError):
        _mark(bundle, variant, device).unlink()


def prepare(bundle: Bundle, tick: Tick | None = None, *, again: bool = True) -> dict[str, str]:
    """Compile and self-test every variant that needs it.

    Args:
        bundle: what to prepare.
        tick: called a few times a second with the variant's name and the seconds it has taken.
        again: also try variants that failed here before.

    Returns:
        {variant: why it cannot be used}; an empty string for one that is ready.

    """
    device = probe()
    found: dict[str, str] = {}
    for variant in filter(needs_preparing, bundle.manifest.variants):
        found[variant.name] = why_not(variant, device)
        if found[variant.name]:
            continue
        with _alone(compiled_folder(bundle, variant, device)):
            said = _said(bundle, variant, device)
            if said is None or (said and again):
                had = _made(compiled_folder(bundle, variant, device))
                said = _compile(bundle, variant, tick)
                if said and had:  # an engine does not replace a file that it cannot read
                    _remove(had)
                    said = _compile(bundle, variant, tick)
                _keep(bundle, variant, device, said)
            found[variant.name] = said
            _prune(compiled_folder(bundle, variant, device))
    return found


def _compile(bundle: Bundle, variant: Variant, tick: Tick | None) -> str:
    """Compile in a separate process, which may crash or be killed; return what went wrong."""
    import subprocess
    import sys
    import tempfile

    start = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "edgepack_runtime",
        "selftest",
        str(bundle.path.absolute()),
        "--variant",
        variant.name,
        "--any-device",
    ]
    with tempfile.TemporaryFile() as said:  # compilers write a lot: a pipe would fill up
        child = subprocess.Popen(  # noqa: S603 (our own program)
            command, stdout=subprocess.DEVNULL, stderr=said, **of_its_own()
        )
        with child:
            while child.poll() is None:
                if tick:
                    tick(variant.name, time.monotonic() - start)
                time.sleep(_POLL)
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    if child.returncode == 0:
        return ""
    reason = text.rpartition("error: ")[2][-_MOST_SAID:]
    return reason or f"the compiler died ({child.returncode})"


def _said(bundle: Bundle, variant: Variant, device: Device) -> str | None:
    """Return the result of compiling a variant: empty if it is ready, None if it was not tried."""
    mark = _mark(bundle, variant, device)
    try:
        kept = json.loads(mark.read_text())
        said, made = kept["said"], kept["made"]
        if not said and any(_digest(mark.parent / name) != digest for name, digest in made.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return said if isinstance(said, str) else None


def _keep(bundle: Bundle, variant: Variant, device: Device, said: str) -> None:
    """Make the compiled files durable, then write the mark."""
    mark = _mark(bundle, variant, device)
    folder = mark.parent
    made = {
        path.relative_to(folder).as_posix(): _digest(path, sync=True)
        for path in ([] if said else _made(folder))
    }
    write_whole(mark, json.dumps({"said": said, "made": made}).encode())
    if not said:
        measured.forget(bundle.digest)  # a choice that was made without this variant


def _mark(bundle: Bundle, variant: Variant, device: Device) -> Path:
    name = f"{bundle.digest.removeprefix('sha256:')}-{variant.name}{_MARK}"
    return compiled_folder(bundle, variant, device) / name


def _made(folder: Path) -> list[Path]:
    """Return the files that a compiler left, without marks."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != _MARK)


def _remove(made: Iterable[Path]) -> None:
    for path in made:
        path.unlink(missing_ok=True)


def _digest(path: Path, *, sync: bool = False) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
        if sync:
            os.fsync(stream.fileno())
    return found.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the kernel frees it if this process dies."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prune(current: Path) -> None:
    """Remove what was compiled from these files for another driver or engine version."""
    for path in current.parent.iterdir():
        if path.is_dir() and path.name != current.name:
            with suppress(OSError):
                shutil.rmtree(path)
