"""Run a program that may hang or leave children behind, and stop all of it after a time limit."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import CompletedProcess


def run_whole(command: Sequence[str], seconds: float, **options: Any) -> CompletedProcess[str]:
    """Run a command in its own process group; kill the whole group after `seconds`.

    If only the shell were killed, the programs it started would go on, and could still do what was
    called off.  The group is also killed if this process is interrupted meanwhile.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
        OSError: it does not start.

    """
    from subprocess import CompletedProcess, Popen

    with Popen(command, start_new_session=True, text=True, **options) as process:  # noqa: S603 (the caller's own program)
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return CompletedProcess(command, process.returncode, out, err)
