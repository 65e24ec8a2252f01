"""Training on `transformers.Trainer`: mixed precision, checkpoints, resume, several processes.

A killed stage resumes from its last checkpoint: its work folder is not removed (see `StageCache`),
and the data order and every random number depend only on the seed and the step.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgepack.compress import rates
from edgepack.compress.batches import ByLength
from edgepack.compress.job import Job
from edgepack.compress.launch import first_process
from edgepack.compress.record import Record, history_of, since_best
from edgepack.compress.schedule import Course, Schedule, choose, facts_of
from edgepack.host import lacks_extra, lacks_memory
from edgepack.stages import progress
from edgepack_runtime.errors import HostError, InputError

TOOLS = ("edgepack", "torch", "transformers", "accelerate")
REPORTERS = ("tensorboard", "wandb")
_CHECKPOINTS = "checkpoints"
_CHECKPOINTS_KEPT = 2
_NO_FIGURE = -1e9


def fit(job: Job, schedule: Schedule, out: Path) -> Record:
    """Train `job.model` in place; `out` holds checkpoints until it is done.

    Raises:
        InputError: the loss is not a number.
        HostError: memory ran out; the message says what to lower.

    """
    course, tried = _course(job, schedule)
    folder = out / _CHECKPOINTS
    _drop_halves(folder)
    try:
        log = _train(job, schedule, course, folder)
    except (MemoryError, RuntimeError) as exc:
        if lacks_memory(exc):
            raise HostError(
                f"training ran out of memory at batch_size {course.batch_size}; lower "
                "batch_size and raise accumulate by the same factor, or lower max_length"
            ) from exc
        raise
    if first_process():
        shutil.rmtree(folder, ignore_errors=True)
    history = history_of(log, -1 if job.judge is None else 1)
    ended = "all epochs were done" if not course.bounded else "max_minutes bounded the epochs"
    early = course.patience and history and history[-1]["epoch"] < course.epochs
    return Record(
        course.learning_rate,
        course.epochs,
        course.batch_size,
        course.precision,
        len(job.learn),
        len(job.held),
        job.figure,
        "no gain on held-out rows" if early else ended,
        history,
        {f"{rate:g}": round(loss, 4) for rate, loss in tried.items()} or None,
    )


def _course(job: Job, schedule: Schedule) -> tuple[Course, dict[float, float]]:
    """Choose what the schedule leaves open; also return {rate: loss} of the trials."""
    from transformers import set_seed

    course = choose(schedule, facts_of(job))
    if schedule.learning_rate is not None or not job.held or schedule.processes > 1:
        return course, {}
    order = list(ByLength([job.lengths[i] for i in job.learn], course.batch_size, schedule.seed))
    tried = rates.settle(job, course, [job.learn[i] for i in order])
    set_seed(schedule.seed)  # the training is the same whether the rate was tried or given
    return replace(course, learning_rate=rates.best(tried)), tried


def _train(
    job: Job, schedule: Schedule, course: Course, folder: Path
) -> Sequence[Mapping[str, Any]]:
    """Run the Trainer, from its last checkpoint if there is one; return its log."""
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last is not None:
        state = json.loads((Path(last) / "trainer_state.json").read_text())
        if _stops(course, state["log_history"]):  # it was killed after the training ended
            _load_weights(job.model, Path(state["best_model_checkpoint"]))
            return list(state["log_history"])
    trainer = _trainer(job, schedule, course, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the libraries: file times, missing devices
        trainer.train(resume_from_checkpoint=last)
    log: Sequence[Mapping[str, Any]] = trainer.state.log_history
    return log


def _drop_halves(folder: Path) -> None:
    """Remove checkpoints that a kill cut short: their state is written last."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _load_weights(model: Any, checkpoint: Path) -> None:
    from safetensors.torch import load_model

    load_model(model, checkpoint / "model.safetensors", strict=False)


def _stops(course: Course, log: Sequence[Mapping[str, Any]]) -> bool:
    """Tell from the log, which is part of checkpoints, whether the training stops early.

    So a resumed run stops where an uninterrupted one does.
    """
    return bool(course.patience) and since_best(log) * course.every >= course.patience


def _trainer(job: Job, schedule: Schedule, course: Course, folder: Path) -> Any:
    import torch
    from transformers import Trainer

    class _Fitter(Trainer):  # type: ignore[misc]
        """A Trainer with the loss, the order of rows and the evaluation of the job."""

        control: Any

        def compute_loss(self, model: Any, inputs: Any, **_: Any) -> Any:
            loss = job.loss(model, dict(inputs))
            if not math.isfinite(float(loss.detach())):
                raise InputError(
                    f"the loss is not a number at step {self.state.global_step}; lower "
                    f"learning_rate (it is {course.learning_rate:g}), or use precision float32"
                )
            return loss

        def _get_train_sampler(self, *_: Any) -> Any:
            rows = course.batch_size * schedule.accumulate
            return ByLength([job.lengths[i] for i in job.learn], rows, schedule.seed)

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            self.model.eval()
            with torch.no_grad():
                found = _figure(job, course)
            figures = {"eval_quality": found if math.isfinite(found) else _NO_FIGURE}
            self.log(figures)
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, figures
            )
            return figures

    judged = bool(course.patience)
    trainer = _Fitter(
        model=job.model,
        args=_arguments(schedule, course, folder, judged=judged),
        train_dataset=list(job.learn),
        eval_dataset=[] if judged else None,
        data_collator=job.collate,
        callbacks=[_pace(course)],
    )
    trainer.model_accepts_loss_kwargs = False  # `loss` is a mean: accumulation must divide it
    return trainer


def _figure(job: Job, course: Course) -> float:
    """Return the figure on the held-out rows; more is better."""
    if job.judge is not None:
        return job.judge(job.model)
    return -rates.held_out_loss(job, course, job.held)


def _pace(course: Course) -> Any:
    """Return the callback that shows progress, evaluates at intervals, and stops early."""
    from transformers import TrainerCallback

    class _Pace(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            progress.step(state.global_step, state.max_steps)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if round(state.epoch) % course.every and state.global_step < state.max_steps:
                control.should_evaluate = control.should_save = False

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = _stops(course, state.log_history)

    return _Pace()


def _arguments(schedule: Schedule, course: Course, folder: Path, *, judged: bool) -> Any:
    import os

    from transformers import TrainingArguments

    world = int(os.environ.get("WORLD_SIZE", "1"))
    if course.batch_size % world:
        raise InputError(f"batch_size {course.batch_size} is not divisible by {world} processes")
    for name in schedule.report_to:
        if find_spec(name) is None:
            raise lacks_extra(f"report_to = [{name!r}]", "tracking")
    logs = folder.parent / "logs"
    if "wandb" in schedule.report_to:  # it takes its folder from here, and the folder must exist
        logs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_DIR", str(logs))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=course.epochs,
        learning_rate=course.learning_rate,
        per_device_train_batch_size=course.batch_size // world,
        gradient_accumulation_steps=schedule.accumulate,
        warmup_ratio=schedule.warmup,
        weight_decay=schedule.weight_decay,
        use_cpu=not _cuda(),
        bf16=course.precision == "bfloat16",
        fp16=course.precision == "float16",
        seed=schedule.seed,
        data_seed=schedule.seed,
        save_strategy="epoch" if judged else "steps",
        save_steps=schedule.checkpoint_steps,
        save_on_each_node=True,
        save_total_limit=_CHECKPOINTS_KEPT,
        eval_strategy="epoch" if judged else "no",
        load_best_model_at_end=judged,
        metric_for_best_model="eval_quality" if judged else None,
        greater_is_better=True,
        logging_steps=50,
        logging_dir=str(logs),
        report_to=list(schedule.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        label_names=[],
        ddp_backend="gloo" if world > 1 and not _cuda() else None,
        ddp_find_unused_parameters=True if world > 1 else None,  # an unused pooler
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 (else DataParallel; see processes)
    return arguments


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
