"""Run the stages of a build, those that do not wait for each other side by side.

The building process works itself; each of its helpers is another process.  Training has the
machine to itself, and stays in the building process, which shows how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from threading import Condition, Thread
from typing import Self

from edgepack.stages import progress
from edgepack.stages.cache import Stage, StageCache, folder_of
from edgepack.stages.helper import Helper, StageError, run_stage
from edgepack_runtime.device.facts import cores, probe
from edgepack_runtime.errors import DeviceError, InputError

Folders = dict[str, Path]
Reason = InputError | DeviceError | StageError
Failures = dict[str, Reason]
Run = Callable[[Stage, Mapping[str, Path], StageCache, Path], Path]
_NATURE = (InputError, DeviceError, StageError)  # of the model: trying again does not help
# A helper imports libraries for some seconds, and holds a model several times over.
_LEAST_WEIGHTS = 32 << 20
_COPIES = 10


class Workers:
    """The building process and its helpers, which last as long as the build.

    Args:
        cache: where finished stages are found and kept.
        view: shows every stage.
        jobs: how many stages may run at a time, this process's included.

    """

    def __init__(self, cache: StageCache, view: progress.View, jobs: int) -> None:
        self.cache = cache
        self.view = view
        self._helpers = [Helper() for _ in range(jobs - 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._helpers:
            helper.close()

    def run(
        self,
        stages: Iterable[Stage],
        folders: Folders,
        log: Path,
        *,
        optional: Collection[str] = (),
    ) -> Failures:
        """Run or look up the stages that are not in `folders` yet, and add them.

        Args:
            stages: each after those that it needs.
            folders: where each finished stage lies, by key; it grows.
            log: where libraries print to.
            optional: keys of stages that the build can do without.

        Returns:
            Why optional stages cannot be made, by key; those that need one of them included.

        Raises:
            EdgepackError: a stage failed; the others that ran are kept.

        """
        schedule = Schedule(stages, folders, optional)
        threads = [
            Thread(target=self._work, args=(schedule, helper.run, log), daemon=True)
            for helper in self._helpers
        ]
        for thread in threads:
            thread.start()
        self._work(schedule, run_stage, log, here=True)
        return schedule.wait()

    def _work(self, schedule: Schedule, run: Run, log: Path, *, here: bool = False) -> None:
        while (stage := schedule.take(here=here)) is not None:
            try:
                inputs = schedule.inputs(stage)
                found = self.cache.lookup(stage)
                with self.view.stage(stage.label, cached=found is not None):
                    found = found or run(stage, inputs, self.cache, log)
            except BaseException as exc:  # noqa: BLE001 (it is raised where the build waits)
                schedule.fail(stage, exc)
            else:
                schedule.finish(stage, found)


class Schedule:
    """Hands out stages in their order, each when its inputs are there.  Safe for threads."""

    def __init__(
        self, stages: Iterable[Stage], folders: Folders, optional: Collection[str] = ()
    ) -> None:
        self._waiting = [stage for stage in stages if stage.key not in folders]
        self._folders = folders
        self._optional = optional
        self._left_out: Failures = {}
        self._running: list[Stage] = []
        self._failure: BaseException | None = None
        self._changed = Condition()

    def take(self, *, here: bool) -> Stage | None:
        """Wait for a stage that can run; None if there is none left or one has failed.

        Args:
            here: for the building process; only that may take a training.

        """
        with self._changed:
            while self._waiting and self._failure is None:
                for stage in self._waiting:
                    if self._can_run(stage, here=here):
                        self._waiting.remove(stage)
                        self._running.append(stage)
                        return stage
                self._changed.wait()
            return None

    def _can_run(self, stage: Stage, *, here: bool) -> bool:
        if any(running.resumes for running in self._running):
            return False
        if stage.resumes and (self._running or not here):
            return False
        needed = (item.key for item in stage.inputs.values() if isinstance(item, Stage))
        return all(key in self._folders for key in needed)

    def inputs(self, stage: Stage) -> Folders:
        """Return where the inputs of a stage lie."""
        with self._changed:
            return {name: folder_of(item, self._folders) for name, item in stage.inputs.items()}

    def finish(self, stage: Stage, folder: Path) -> None:
        """Add what a stage made."""
        with self._changed:
            self._folders[stage.key] = folder
            self._running.remove(stage)
            self._changed.notify_all()

    def fail(self, stage: Stage, reason: BaseException) -> None:
        """Leave out an optional stage that cannot be made; else hand out nothing more.

        The first reason counts.  A full disk or a process that died is no trait of the model, so
        it ends the build whatever the stage.
        """
        with self._changed:
            if stage.key in self._optional and isinstance(reason, _NATURE):
                self._running.remove(stage)
                self._leave_out(stage, reason)
            else:
                self._failure = self._failure or reason
            self._changed.notify_all()

    def _leave_out(self, stage: Stage, reason: Reason) -> None:
        """Leave out a stage and those that wait for it."""
        self._left_out[stage.key] = reason
        for waiting in list(self._waiting):  # each stands after those that it needs
            if any(needed.key in self._left_out for needed in waiting.inputs.values()):
                self._waiting.remove(waiting)
                self._left_out[waiting.key] = reason

    def wait(self) -> Failures:
        """Wait for the stages that still run; raise what ended the build, return what it lacks."""
        with self._changed:
            while self._running and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            return self._left_out


def fitting_jobs(model: Path) -> int:
    """Return how many stages of a build should run at a time: 2 where that pays and fits."""
    weights = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    room = probe().memory_mb << 20
    return 2 if cores() > 1 and weights >= _LEAST_WEIGHTS and room >= 2 * _COPIES * weights else 1
