"""The view of a build: live on a terminal, plain lines elsewhere; each finished stage leaves one.

Stages import noisy libraries; what these print goes to a log file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console


_MINUTE = 60.0  # seconds between two lines of a running stage


class View(Protocol):
    """Shows the stages of a build as they run."""

    def stage(self, label: str, *, cached: bool) -> contextlib.AbstractContextManager[None]:
        """Show one stage while the context is open."""


_steps: ContextVar[Callable[[int, int], None] | None] = ContextVar("steps", default=None)


def step(done: int, total: int) -> None:
    """Report the progress of the running stage; a stage of many steps calls this."""
    if (show := _steps.get()) is not None:
        show(done, total)


class Quiet:
    """Shows nothing."""

    @contextlib.contextmanager
    def stage(self, label: str, *, cached: bool) -> Iterator[None]:  # noqa: ARG002 (View)
        """Run one stage."""
        yield


class Live(Quiet):
    """A bar for all stages, a line for each running stage, and a lasting line for each done."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._total = total
        self._all = self._progress.add_task("all stages", total=total, count="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def stage(self, label: str, *, cached: bool) -> Iterator[None]:
        """Show one stage, then leave a line for it.  Several threads may each show a stage."""
        start = time.perf_counter()
        running = self._progress.add_task(label, total=None, count="")

        def show(done: int, total: int) -> None:
            self._progress.update(running, completed=done, total=total, count=f"{done}/{total}")

        token = _steps.set(show)
        try:
            yield
        finally:
            _steps.reset(token)
            self._progress.remove_task(running)
        took = "cached" if cached else f"{time.perf_counter() - start:.1f} s"
        self._console.print(f"[green]✓[/green] {label:<56} [dim]{took:>8}[/dim]", highlight=False)
        self._progress.advance(self._all)
        done = self._progress.tasks[0].completed
        self._progress.update(self._all, count=f"{done:.0f}/{self._total}")


class _Running:
    """A running stage, as shown in a plain line."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._start = time.perf_counter()
        self._count = ""

    def step(self, done: int, total: int) -> None:
        """Record its progress."""
        self._count = f"{done}/{total}, "

    def took(self) -> str:
        """Return the seconds so far."""
        return f"{time.perf_counter() - self._start:.1f} s"

    def __str__(self) -> str:
        return f"{self.label}: {self._count}running for {self.took()}"


class Lines(Quiet):
    """Plain lines, for logs: one for each finished stage, one a minute for each running stage."""

    def __init__(self, stream: IO[str], total: int) -> None:
        self._stream = stream
        self._total = total
        self._done = 0
        self._lock = Lock()

    @contextlib.contextmanager
    def stage(self, label: str, *, cached: bool) -> Iterator[None]:
        """Show one stage.  Several threads may each show a stage."""
        running, ended = _Running(label), Event()
        if not cached:
            Thread(target=self._remind, args=(running, ended), daemon=True).start()
        token = _steps.set(running.step)
        try:
            yield
        finally:
            _steps.reset(token)
            ended.set()
        with self._lock:
            self._done += 1
            self._say(f"{label}: {'cached' if cached else running.took()}")

    def _remind(self, running: _Running, ended: Event) -> None:
        while not ended.wait(_MINUTE):
            with self._lock:
                self._say(str(running))

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the reader is gone
            self._stream.write(f"[{self._done}/{self._total}] {text}\n")
            self._stream.flush()


class _Diverted:
    """Replaces `sys.stdout` or `sys.stderr`: writes to a log, and after `end` to the stream.

    Libraries that are imported meanwhile make log handlers, which hold this object for good.
    """

    def __init__(self, name: str, log: TextIO) -> None:
        self._name = name
        self._log: TextIO | None = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log or getattr(sys, self._name), name)

    def end(self) -> None:
        """Write to the stream from now on."""
        self._log = None


@contextlib.contextmanager
def _levels_kept() -> Iterator[None]:
    """Restore the levels of the host's own log, which libraries may change in this context."""
    known: list[logging.Logger | logging.Handler] = [logging.root, *logging.root.handlers]
    before = [(item, item.level) for item in known]
    try:
        yield
    finally:
        for item, level in before:
            item.setLevel(level)


@contextlib.contextmanager
def silenced(log: Path) -> Iterator[None]:
    """Send what libraries print, warn and log in this context to a file."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # the stage itself will report what is wrong with the disk
        log = Path(os.devnull)
    with log.open("a", encoding="utf-8") as stream, warnings.catch_warnings(), _levels_kept():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        out, err = _Diverted("stdout", stream), _Diverted("stderr", stream)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield
        finally:
            out.end()
            err.end()
            logging.disable(before)


def make_view(
    console: Console, total: int, *, plain: bool
) -> contextlib.AbstractContextManager[Quiet]:
    """Return a context that yields the view: live on a terminal, else (or if `plain`) lines."""
    if plain or console.is_dumb_terminal or not console.file.isatty():
        return contextlib.nullcontext(Lines(console.file, total))
    return Live(console, total)


def log_error(log: Path) -> None:
    """Append the traceback of the current exception to the log."""
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
        stream.write(traceback.format_exc())
