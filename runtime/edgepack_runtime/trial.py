"""Prove a release that is on trial: here, or in a process of its own that may hang or crash."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from edgepack_runtime.bundle import Bundle
from edgepack_runtime.errors import DeviceError, EdgepackError, SelfTestError, TrustError
from edgepack_runtime.paths import of_its_own


class BrokenOffError(EdgepackError):
    """The proof did not come to an end: it may be tried again, as often as there are attempts."""


def prove(bundle: Bundle) -> None:
    """Load a release and run its golden inputs in this process.

    Raises:
        SelfTestError: its outputs stray.
        TrustError: it is not whole.
        DeviceError: this device cannot run it now.

    """
    from edgepack_runtime.model import load
    from edgepack_runtime.selftest import selftest

    selftest(bundle, load(bundle))


def prove_apart(store: Path, seconds: float, bundle: Bundle) -> None:
    """Do as `prove`, in a process of its own that is killed after so many seconds.

    Raises:
        BrokenOffError: it crashed or hung.
        DeviceError: it was killed, or lacked memory or its disk; else as `prove` does.

    """
    import subprocess

    command = [sys.executable, "-m", "edgepack_runtime.trial", str(store.absolute()),
               bundle.digest]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 (our own program)
            command, check=False, timeout=seconds, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", **of_its_own(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise BrokenOffError(f"the self-test did not end within {seconds:g} s") from exc
    if done.returncode == 0:
        return
    said = done.stderr.strip().splitlines()
    reason = said[-1].removeprefix("error: ") if said else "it said nothing"
    families = (SelfTestError, TrustError, DeviceError)
    family = next((f for f in families if f.exit_code == done.returncode), None)
    if done.returncode == -signal.SIGKILL:
        raise DeviceError("the self-test was killed, as a system does that is short of memory")
    if family is None:
        raise BrokenOffError(f"the self-test broke off with {done.returncode}: {reason}")
    raise family(reason)


def _main(store: str, digest: str) -> int:
    from edgepack_runtime.store import Store

    try:
        prove(Store.at(Path(store)).bundle(digest))
    except EdgepackError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    except (OSError, MemoryError) as exc:  # the device's trouble, and no verdict
        sys.stderr.write(f"error: {exc or type(exc).__name__}\n")
        return DeviceError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
