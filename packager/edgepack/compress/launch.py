"""Start a training: in this process, or in several processes under torchrun."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.compress.schedule import Schedule
from edgepack_runtime.errors import EdgepackError, HostError, InputError


def first_process() -> bool:
    """Tell whether this is the one process of its machine that writes the result."""
    import os

    return os.environ.get("LOCAL_RANK", "0") == "0"


def launch(module: str, settings: Any, inputs: Mapping[str, Path], out: Path) -> None:
    """Run `module.work(settings, inputs, out)`, here or in several processes under torchrun.

    Raises:
        EdgepackError: a process failed; the error has the family of its failure.

    """
    from importlib import import_module

    schedule: Schedule = settings.schedule
    if schedule.processes == 1 and not schedule.launcher:
        import_module(module).work(settings, inputs, out)
        return
    import pickle
    import subprocess

    job = out / "job.pickle"
    failure = out / "failure.json"
    failure.unlink(missing_ok=True)
    job.write_bytes(pickle.dumps((module, settings, dict(inputs), out)))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={schedule.processes}",
        *(schedule.launcher or ("--standalone",)),
        "-m",
        "edgepack.compress.launch",
        str(job),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    job.unlink(missing_ok=True)
    if done.returncode:
        said = json.loads(failure.read_text()) if failure.is_file() else {}
        lines = done.stderr.strip().splitlines() or ["no message"]
        families = (InputError, HostError)
        family = next((f for f in families if f.exit_code == said.get("exit_code")), EdgepackError)
        raise family(said.get("message", f"training failed: {lines[-1]}"))


def _worker(job: Path) -> None:
    """Run one process of a job written by `launch`."""
    import pickle
    from importlib import import_module

    module, settings, inputs, out = pickle.loads(job.read_bytes())  # noqa: S301 (our own file)
    try:
        import_module(module).work(settings, inputs, out)
    except EdgepackError as exc:
        (out / "failure.json").write_text(
            json.dumps({"message": str(exc), "exit_code": exc.exit_code})
        )
        raise


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
