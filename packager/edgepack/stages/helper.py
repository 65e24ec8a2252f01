"""Run one stage: in this process, or in a helper, a process that runs the stages it is given.

A helper reads pickled jobs from its standard input and answers each on its standard output.  It
ends when that input ends, even in the middle of a stage, so it never outlives its parent.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from edgepack.host import lacks_memory
from edgepack.stages import progress
from edgepack.stages.cache import Stage, StageCache
from edgepack_runtime.errors import EdgepackError, HostError

_MOST_CHARACTERS = 160  # of a library's message, in our messages


class StageError(EdgepackError):
    """A library could not do what a stage asked of it.

    Args:
        label: the label of the stage.
        reason: one line without folders, the same on every machine.
        log: the file with the traceback.

    """

    def __init__(self, label: str, reason: str, log: Path) -> None:
        super().__init__(label, reason, log)
        self.reason = reason

    def __str__(self) -> str:
        label, reason, log = self.args
        return f"stage {label!r} failed: {reason}; details in {log}"


def run_stage(stage: Stage, inputs: Mapping[str, Path], cache: StageCache, log: Path) -> Path:
    """Run a stage and return its folder; what its libraries print goes to `log`.

    Raises:
        EdgepackError: it failed: a `HostError` if memory ran out, a `StageError` if a library
            raised an error of its own.

    """
    try:
        with progress.silenced(log):
            return cache.run(stage, inputs)
    except EdgepackError:
        raise
    except Exception as exc:  # the one place that catches the errors of all libraries
        progress.log_error(log)
        if lacks_memory(exc):
            raise HostError(
                f"stage {stage.label!r} ran out of memory; try --jobs 1, or a host with more"
            ) from exc
        raise StageError(stage.label, _one_line(exc), log) from exc


def _one_line(exc: Exception) -> str:
    """Return the first meaningful line of an error, without the folders of this host."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    told = next((line for line in lines if not line.startswith("Check '")), "")
    line = re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", " ".join(told.split()) or type(exc).__name__)
    return f"{line[:_MOST_CHARACTERS]}…" if len(line) > _MOST_CHARACTERS else line


class Helper:
    """A process that runs stages for another one; it starts with the first stage."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, stage: Stage, inputs: Mapping[str, Path], cache: StageCache, log: Path) -> Path:
        """Run a stage in that process, as `run_stage` does in this one.

        Raises:
            EdgepackError: it failed, or the process died.

        """
        process = self._process = self._process or _start()
        if self._closed:
            process.kill()
        try:
            pickle.dump((stage, dict(inputs), cache, log), process.stdin)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = pickle.load(process.stdout)  # type: ignore[arg-type]  # noqa: S301 (our child)
        except (EOFError, OSError) as exc:
            self._process = None
            raise EdgepackError(
                f"stage {stage.label!r} failed: its process died ({_end(process)}), perhaps from "
                "lack of memory; try --jobs 1"
            ) from exc
        if isinstance(answer, EdgepackError):
            raise answer
        return Path(answer)

    def close(self) -> None:
        """Kill the process, whatever it is doing: a stage is published whole or not at all."""
        self._closed = True
        if process := self._process:
            process.kill()
            _end(process)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: do not look for modules in the current folder, which may belong to anyone.
        # Not -m: a module that runs as __main__ has classes that cannot be sent.
        [sys.executable, "-P", "-c", "from edgepack.stages.helper import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that is dying, and close its pipes; return its exit status."""
    with suppress(BrokenPipeError), process:
        pass
    return process.wait()


def main() -> None:
    """Run as a helper."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal, and stops us
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # a process forked by a library would block on it
    os.dup2(2, 1)  # what a library prints must not look like an answer
    jobs: SimpleQueue[tuple[Stage, Mapping[str, Path], StageCache, Path]] = SimpleQueue()
    Thread(target=_read, args=(requests, jobs), daemon=True).start()
    while True:
        answer: Path | EdgepackError
        try:
            answer = run_stage(*jobs.get())
        except EdgepackError as exc:
            answer = exc
        pickle.dump(answer, answers)
        answers.flush()


def _read(requests: BinaryIO, jobs: SimpleQueue[Any]) -> None:
    """Take jobs as they arrive; exit when the parent is gone."""
    try:
        while True:
            jobs.put(pickle.load(requests))  # noqa: S301 (our parent)
    finally:
        os._exit(0)
