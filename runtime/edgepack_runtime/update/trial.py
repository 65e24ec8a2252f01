"""Prove a release on trial: here, or in a separate process that may hang or crash."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import DeviceError, EdgepackError, SelfTestError, TrustError
from edgepack_runtime.paths import of_its_own
from edgepack_runtime.process import run_whole

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

_ROUNDS = 5


class BrokenOffError(EdgepackError):
    """The proof did not finish: it may be tried again while attempts are left."""


def prove(bundle: Bundle, most_ms: float = 0.0) -> None:
    """Load a release and run its golden inputs in this process.

    Args:
        bundle: the release.
        most_ms: the limit for the median time of a golden input, in milliseconds; 0 for none.

    Raises:
        SelfTestError: its outputs stray, or it is slower than the limit.
        TrustError: it is not whole.
        DeviceError: this device cannot run it now.

    """
    from edgepack_runtime.model.load import load
    from edgepack_runtime.model.selftest import selftest

    model = load(bundle)
    selftest(bundle, model)
    if most_ms and (found := _median_ms(bundle, model)) > most_ms:
        raise SelfTestError(
            f"{bundle.path}: variant {model.variant.name} takes {found:.1f} ms for a golden input "
            f"on this device; the limit is {most_ms:g}"
        )


def _median_ms(bundle: Bundle, model: Model) -> float:
    """Return the median time from golden input to answer; each input runs a few times."""
    import statistics

    from edgepack_runtime.model.selftest import read_golden

    times = []
    for item in read_golden(bundle).inputs:
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            model(item)
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def prove_apart(store: Path, seconds: float, most_ms: float, bundle: Bundle) -> None:
    """Do as `prove` does, in a separate process that is killed after `seconds`.

    Raises:
        BrokenOffError: it crashed or hung.
        DeviceError: it was killed, or lacked memory or its disk; other errors are those of `prove`.

    """
    import subprocess

    command = [
        sys.executable,
        "-m",
        "edgepack_runtime.update.trial",
        str(store.absolute()),
        bundle.digest,
        str(most_ms),
    ]
    try:
        done = run_whole(
            command,
            seconds,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            errors="replace",
            **of_its_own(),
        )
    except subprocess.TimeoutExpired as exc:
        raise BrokenOffError(f"the self-test did not end within {seconds:g} s") from exc
    if done.returncode == 0:
        return
    if done.returncode == -signal.SIGKILL:
        raise DeviceError("the self-test was killed, as happens when a system is short of memory")
    said = done.stderr.strip().splitlines()
    reason = said[-1].removeprefix("error: ") if said else "it said nothing"
    families = (SelfTestError, TrustError, DeviceError)
    family = next((f for f in families if f.exit_code == done.returncode), None)
    if family is None:
        raise BrokenOffError(f"the self-test broke off with {done.returncode}: {reason}")
    raise family(reason)


def _main(store: str, digest: str, most_ms: str) -> int:
    from edgepack_runtime.store.store import Store

    try:
        prove(Store.at(Path(store)).blobs.bundle(digest), float(most_ms))
    except EdgepackError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    except (OSError, MemoryError) as exc:  # a fault of the device, not a verdict on the release
        sys.stderr.write(f"error: {exc or type(exc).__name__}\n")
        return DeviceError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
