"""Training on `transformers.Trainer`: mixed precision, checkpoints, resume, several processes.

A stage that was killed goes on from its last checkpoint: its work folder is kept (see
`StageCache`), and the data order and every random number follow from the seed and the step.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack import progress
from edgepack_runtime.errors import EdgepackError, InputError

TOOLS = ("edgepack", "torch", "transformers", "accelerate")
PRECISIONS = ("float32", "bfloat16", "float16")
REPORTERS = ("tensorboard", "wandb")
_CHECKPOINTS = "checkpoints"
_CHECKPOINTS_KEPT = 2
_POOL = 50  # steps whose rows are sorted by length together


@dataclass(frozen=True)
class Schedule:
    """How to train.

    epochs: passes over the data; batch_size: rows in one step of all processes together.
    accumulate: steps whose gradients are summed before the weights move.
    warmup: share of all steps in which the learning rate rises.
    precision: of the arithmetic, one of `PRECISIONS`; weights stay in float32.
    patience: evaluations without gain after which to stop; 0 never stops early.
    processes: on this machine, joined by torchrun; launcher: more arguments for torchrun, for
        instance `--nnodes=2 --rdzv-endpoint=host:29500`.
    report_to: experiment trackers, of `REPORTERS`.
    checkpoint_steps: steps between two checkpoints; with patience there is one an epoch.
    """

    epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 32
    accumulate: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    precision: str = "float32"
    patience: int = 0
    seed: int = 0
    processes: int = 1
    launcher: tuple[str, ...] = ()
    report_to: tuple[str, ...] = ()
    checkpoint_steps: int = 500


@dataclass(frozen=True)
class Job:
    """One training: what `fit` needs.

    rows: dicts with `input_ids`, `attention_mask` and whatever `collate` reads.
    evaluate: returns the figure of a model that counts; None without evaluation rows.
    """

    model: Any
    rows: Sequence[Mapping[str, Any]]
    collate: Callable[[list[Mapping[str, Any]]], dict[str, Any]]
    loss: Callable[[Any, dict[str, Any]], Any]
    evaluate: Callable[[Any], float] | None = None


def fit(job: Job, schedule: Schedule, out: Path) -> None:
    """Train `job.model` in place; checkpoints lie in `out` until it is done.

    Raises:
        InputError: the loss is not a number, or memory ran out; the message says what to lower.

    """
    from transformers.trainer_utils import get_last_checkpoint

    folder = out / _CHECKPOINTS
    _drop_halves(folder)
    trainer = _trainer(job, schedule, folder)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own: file times, missing devices
            trainer.train(resume_from_checkpoint=last)
    except (MemoryError, RuntimeError) as exc:
        if isinstance(exc, MemoryError) or "memory" in str(exc).lower():
            raise InputError(
                f"training ran out of memory at batch_size {schedule.batch_size}; lower "
                "batch_size and raise accumulate by the same factor, or lower max_length"
            ) from exc
        raise
    if first_process():
        shutil.rmtree(folder, ignore_errors=True)


class _ByLength:
    """Order rows at random, so that the rows of one step are of like length.

    The order of an epoch follows from the seed and its number alone: so it is the same after
    a resume, and for any number of processes, which share each step's rows between them.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the Trainer calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}/{self._epoch}")  # noqa: S311 (an order, not a secret)
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        size = self._batch_size
        pools = (order[i : i + size * _POOL] for i in range(0, len(order), size * _POOL))
        ranked = [i for pool in pools for i in sorted(pool, key=self._lengths.__getitem__)]
        steps = [ranked[i : i + size] for i in range(0, len(ranked), size)]
        last = steps.pop() if len(steps[-1]) < size else []  # the short one stays at the end
        rng.shuffle(steps)
        yield from (i for step in [*steps, last] for i in step)


def _drop_halves(folder: Path) -> None:
    """Remove checkpoints that a kill cut short: their state is written last."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _trainer(job: Job, schedule: Schedule, folder: Path) -> Any:
    import torch
    from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

    class _Fitter(Trainer):  # type: ignore[misc]
        """A Trainer with the loss, the order of rows and the evaluation of the job."""

        control: Any

        def compute_loss(self, model: Any, inputs: Any, **_: Any) -> Any:
            loss = job.loss(model, dict(inputs))
            if not math.isfinite(float(loss.detach())):
                raise InputError(
                    f"the loss is not a number at step {self.state.global_step}; lower "
                    f"learning_rate (it is {schedule.learning_rate}), or use precision float32"
                )
            return loss

        def _get_train_sampler(self, *_: Any) -> Any:
            rows = schedule.batch_size * schedule.accumulate
            return _ByLength([row["length"] for row in job.rows], rows, schedule.seed)

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            self.model.eval()
            with torch.no_grad():
                figures = {"eval_quality": job.evaluate(self.model) if job.evaluate else 0.0}
            self.log(figures)
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, figures
            )
            return figures

    class _Steps(TrainerCallback):  # type: ignore[misc]
        """Shows how far the training is."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            progress.step(state.global_step, state.max_steps)

    stopping = schedule.patience and job.evaluate
    stops = [EarlyStoppingCallback(schedule.patience)] if stopping else []
    trainer = _Fitter(
        model=job.model,
        args=_arguments(schedule, folder, evaluated=job.evaluate is not None),
        train_dataset=list(job.rows),
        eval_dataset=[] if job.evaluate else None,
        data_collator=job.collate,
        callbacks=[*stops, _Steps()],
    )
    trainer.model_accepts_loss_kwargs = False  # `loss` is a mean: accumulation has to divide it
    return trainer


def _arguments(schedule: Schedule, folder: Path, *, evaluated: bool) -> Any:
    import os

    from transformers import TrainingArguments

    world = int(os.environ.get("WORLD_SIZE", "1"))
    if schedule.batch_size % world:
        raise InputError(f"batch_size {schedule.batch_size} does not divide by {world} processes")
    best = evaluated and schedule.patience > 0
    logs = folder.parent / "logs"
    if "wandb" in schedule.report_to:  # it takes its folder from here, and wants it to be there
        logs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_DIR", str(logs))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        per_device_train_batch_size=schedule.batch_size // world,
        gradient_accumulation_steps=schedule.accumulate,
        warmup_ratio=schedule.warmup,
        weight_decay=schedule.weight_decay,
        use_cpu=not _cuda(),
        bf16=schedule.precision == "bfloat16",
        fp16=schedule.precision == "float16",
        seed=schedule.seed,
        data_seed=schedule.seed,
        save_strategy="epoch" if best else "steps",
        save_steps=schedule.checkpoint_steps,
        save_on_each_node=True,
        save_total_limit=_CHECKPOINTS_KEPT,
        eval_strategy="epoch" if best else "no",
        load_best_model_at_end=best,
        metric_for_best_model="eval_quality" if best else None,
        greater_is_better=True,
        logging_steps=50,
        logging_dir=str(logs),
        report_to=list(schedule.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        label_names=[],
        ddp_backend="gloo" if world > 1 and not _cuda() else None,
        ddp_find_unused_parameters=True if world > 1 else None,  # a pooler nobody reads
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 (else DataParallel; see processes)
    return arguments


def first_process() -> bool:
    """Tell whether this is the one process of its machine that writes the result."""
    import os

    return os.environ.get("LOCAL_RANK", "0") == "0"


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def launch(module: str, settings: Any, inputs: Mapping[str, Path], out: Path) -> None:
    """Run `module.work(settings, inputs, out)`: here, or in processes joined by torchrun.

    Raises:
        EdgepackError: a process failed; of the family that it failed with.

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
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={schedule.processes}",
        *(schedule.launcher or ("--standalone",)), "-m", "edgepack.compress.training", str(job),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    job.unlink(missing_ok=True)
    if done.returncode:
        said = json.loads(failure.read_text()) if failure.is_file() else {}
        lines = done.stderr.strip().splitlines() or ["no message"]
        kind = InputError if said.get("exit_code") == InputError.exit_code else EdgepackError
        raise kind(said.get("message", f"training failed: {lines[-1]}"))


def _worker(job: Path) -> None:
    """Run one process of a job that `launch` wrote."""
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
