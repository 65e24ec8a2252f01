"""Run the stages of a build; stages that do not wait for each other run side by side.

The building process runs stages itself; each of its helpers is another process.  Training has the
machine to itself, and runs in the building process, which shows its progress.
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
_NATURE = (InputError, DeviceError, StageError)  # faults of the model: trying again does not help
# A helper takes some seconds to import libraries, and holds several copies of a model.
_LEAST_WEIGHTS = 32 << 20
_COPIES = 10


class Workers:
    """The building process and its helpers, which last as long as the build.

    Args:
        cache: holds finished stages.
        view: shows every stage.
        jobs: how many stages may run at a time, including in this process.

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
            stages: the stages, each after the stages it needs.
            folders: the folder of each finished stage, by key; stages are added.
            log: the file for what libraries print.
            optional: keys of stages that the build can do without.

        Returns:
            Why optional stages cannot be made, by key, including stages that need one of them.

        Raises:
            EdgepackError: a stage failed; the stages that finished are cached.

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
            except BaseException as exc:  # noqa: BLE001 (it is raised again where the build waits)
                schedule.fail(stage, exc)
            else:
                schedule.finish(stage, found)


class Schedule:
    """Hands out stages in order, each when its inputs are ready.  Safe for threads."""

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
            here: whether the caller is the building process; only it may take a training.

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
        """Return the folders of a stage's inputs."""
        with self._changed:
            return {name: folder_of(item, self._folders) for name, item in stage.inputs.items()}

    def finish(self, stage: Stage, folder: Path) -> None:
        """Record the folder of a finished stage."""
        with self._changed:
            self._folders[stage.key] = folder
            self._running.remove(stage)
            self._changed.notify_all()

    def fail(self, stage: Stage, reason: BaseException) -> None:
        """Leave out an optional stage that cannot be made; otherwise hand out nothing more.

        The first reason counts.  A full disk or a process that died is not a fault of the model, so
        it ends the build, whichever stage it was.
        """
        with self._changed:
            if stage.key in self._optional and isinstance(reason, _NATURE):
                self._running.remove(stage)
                self._leave_out(stage, reason)
            else:
                self._failure = self._failure or reason
            self._changed.notify_all()

    def _leave_out(self, stage: Stage, reason: Reason) -> None:
        """Leave out a stage and the stages that wait for it."""
        self._left_out[stage.key] = reason
        for waiting in list(self._waiting):  # each follows the stages it needs
            if any(needed.key in self._left_out for needed in waiting.inputs.values()):
                self._waiting.remove(waiting)
                self._left_out[waiting.key] = reason

    def wait(self) -> Failures:
        """Wait for running stages; raise the error that ended the build, or return failures."""
        with self._changed:
            while self._running and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            return self._left_out


def fitting_jobs(model: Path) -> int:
    """Return how many stages of a build should run at a time: 2 if that is faster and fits."""
    weights = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    room = probe().memory_mb << 20
    return 2 if cores() > 1 and weights >= _LEAST_WEIGHTS and room >= 2 * _COPIES * weights else 1
