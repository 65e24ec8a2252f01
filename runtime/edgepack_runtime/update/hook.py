"""The operator's own commands around the switch to a new release."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.process import run_whole

if TYPE_CHECKING:
    from edgepack_runtime.bundle.bundle import Bundle


def run_hook(command: str, seconds: float, failure: type[EdgepackError], bundle: Bundle) -> None:
    """Run a command in a shell, if it is not empty; its environment describes the release.

    Raises:
        EdgepackError: of the kind `failure`, if it fails or does not end within `seconds`.

    """
    if not command:
        return
    from subprocess import TimeoutExpired

    manifest = bundle.manifest
    told = {
        "EDGEPACK_DIGEST": bundle.digest,
        "EDGEPACK_VERSION": manifest.version,
        "EDGEPACK_NAME": f"{manifest.name}/{manifest.target}",
        "EDGEPACK_RELEASE": str(manifest.release),
    }
    try:
        done = run_whole(["/bin/sh", "-c", command], seconds, env={**os.environ, **told}, stdout=2)
    except TimeoutExpired as exc:
        raise failure(f"the hook {command!r} did not end within {seconds:g} s") from exc
    except (OSError, ValueError) as exc:
        raise failure(f"the hook {command!r} does not start: {exc}") from exc
    if done.returncode:
        raise failure(f"the hook {command!r} failed with {done.returncode}")
