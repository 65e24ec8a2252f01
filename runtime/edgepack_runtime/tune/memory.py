"""How much memory a bundle takes, measured in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.paths import of_its_own

_CODE = """
import sys, edgepack_runtime as er
er.load(sys.argv[1], variant=sys.argv[2] or None, threads=int(sys.argv[3]) or None)
print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
"""


def peak_memory(path: Path, variant: str = "", threads: int = 0) -> float:
    """Return the peak memory of a process that loads a bundle and answers, in 10⁶ bytes.

    Args:
        path: the bundle.
        variant: by name; empty for the one that `load` picks.
        threads: as `load` takes them; 0 for its default.

    Raises:
        EdgepackError: it does not load, or this system does not report memory (no /proc).

    """
    done = subprocess.run(  # noqa: S603 (our own interpreter and code)
        [sys.executable, "-c", _CODE, str(path.absolute()), variant, str(threads)],
        check=False,
        capture_output=True,
        text=True,
        **of_its_own(),
    )
    if done.returncode:
        raise EdgepackError(f"loading {path} in a fresh process failed: {done.stderr.strip()}")
    return int(done.stdout.split()[-1]) * 1024 / 1e6
