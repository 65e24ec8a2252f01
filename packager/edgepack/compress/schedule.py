"""How to train: what a recipe says, and what is chosen where it is silent.

Every choice is a pure function of its inputs.  Time is bounded by arithmetic, counted and not
measured: the same data and seed give the same model on a fast host and on a busy one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgepack.compress.job import Job

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# Rows read in all, by a fine-tuning and by a student.  A teacher that read 100,000 rows of CLINC150
# was no better for it and surer of itself, and its student lost 1.2 points instead of 1.0.
_VISITS = {False: 60_000, True: 400_000}
_FEWEST, _MOST = 3, 40  # epochs
_RATE, _WIDTH = 2e-4, 384  # a learning rate that suits encoders of this width
_RATES = (1e-5, 1e-3)
_STUDENT = 2.5  # a student that copies a teacher bears a larger rate
_BATCH = {False: 32, True: 64}
_SMALLEST_BATCH, _FEWEST_STEPS = 8, 300
_MOST_OUTPUTS = 2**27  # numbers that a step gives: half a gigabyte, several times in memory
_FLOPS = 2e11  # a second: two cores of a current server in bfloat16, as measured on MiniLM
_LEAST_WIDTH = 128  # below it, casting to bfloat16 costs more than it saves
_LEAST_ROWS = 100  # fewer are all needed to learn from
_EVALUATIONS = 10
_HELD, _MOST_HELD = 20, 1000  # one row in so many is held out


@dataclass(frozen=True)
class Schedule:
    """How to train, as a recipe says it; None where it is to be chosen."""

    epochs: float | None = None
    """Passes over the data."""
    learning_rate: float | None = None
    """The highest; it rises to it and falls from it."""
    batch_size: int | None = None
    """Rows in one step of all processes together."""
    accumulate: int = 1
    """Steps whose gradients are summed before the weights move."""
    warmup: float = 0.1
    """The share of all steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """Of AdamW."""
    precision: str = "auto"
    """Of the arithmetic, one of `PRECISIONS`; weights stay in float32."""
    patience: int | None = None
    """Epochs without gain on held-out rows after which to stop; 0 never stops early."""
    max_minutes: float = 30.0
    """Bounds the epochs that are chosen, for a host of `_FLOPS`; never measured."""
    seed: int = 0
    """Of the order of rows, and of dropout."""
    processes: int = 1
    """On this machine, joined by torchrun."""
    launcher: tuple[str, ...] = ()
    """More arguments for torchrun, for instance `--nnodes=2 --rdzv-endpoint=host:29500`."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers, of `training.REPORTERS`."""
    checkpoint_steps: int = 500
    """Steps between two checkpoints; with patience there is one an epoch."""

    @property
    def holds_out(self) -> bool:
        """Tell whether held-out rows are needed: to choose by, or to stop by."""
        return self.epochs is None or self.learning_rate is None or bool(self.patience)


@dataclass(frozen=True)
class Facts:
    """What the choice depends on."""

    rows: int
    """To learn from."""
    held: int
    """Held out."""
    tokens: float
    """The mean of a row."""
    width: int
    """Of the hidden states."""
    weights: int
    """Numbers that matrix products use."""
    student: bool
    """Whether a teacher's answers are copied."""
    beside: int = 0
    """Numbers that matrix products of a model use which runs on every row too."""
    outputs: int = 1
    """Numbers that the model gives for a token."""


@dataclass(frozen=True)
class Course:
    """A schedule with nothing left to choose; the fields mean what `Schedule`'s do."""

    epochs: float
    learning_rate: float
    batch_size: int
    precision: str
    patience: int
    bounded: bool = False
    """Whether `max_minutes` made it shorter than it would be."""

    @property
    def every(self) -> int:
        """Return the epochs between two evaluations, each of which writes a checkpoint."""
        return max(1, math.ceil(self.epochs / _EVALUATIONS))


def choose(schedule: Schedule, facts: Facts) -> Course:
    """Fill in what a schedule leaves open."""
    wanted = _VISITS[facts.student] / max(1, facts.rows)
    flops = (6 * facts.weights + 2 * facts.beside) * facts.tokens  # forward is 2
    seconds = flops * facts.rows / _FLOPS  # of an epoch
    most = schedule.max_minutes * 60 / seconds if seconds else math.inf
    epochs = float(min(_MOST, max(_FEWEST, round(wanted))))
    bounded = schedule.epochs is None and epochs > max(1.0, most)
    epochs = float(max(1, int(most))) if bounded else epochs
    epochs = schedule.epochs if schedule.epochs is not None else epochs
    patience = 0 if schedule.epochs is not None else max(3, round(epochs / 3))
    patience = patience if schedule.patience is None else schedule.patience
    return Course(
        epochs=epochs,
        learning_rate=schedule.learning_rate or _rate(facts),
        batch_size=schedule.batch_size or _batch(facts, epochs, schedule.processes),
        precision=fastest(facts.width) if schedule.precision == "auto" else schedule.precision,
        patience=patience if facts.held else 0,
        bounded=bounded,
    )


def held_out(rows: int) -> int:
    """Return how many rows to hold out of so many."""
    return 0 if rows < _LEAST_ROWS else min(_MOST_HELD, max(rows // _HELD, min(100, rows // 10)))


def facts_of(job: Job) -> Facts:
    """Return the facts of a training."""
    vectors, head = job.model.get_input_embeddings().weight, job.model.get_output_embeddings()
    return Facts(
        rows=len(job.learn),
        held=len(job.held),
        tokens=sum(job.lengths) / max(1, len(job.lengths)),
        width=int(vectors.shape[1]),
        weights=_multiplied(job.model),
        student=job.student,
        beside=_multiplied(job.beside) if job.beside else 0,
        outputs=1 if head is None else int(head.weight.shape[0]),
    )


def _multiplied(model: Any) -> int:
    """Count the numbers that matrix products use: not those of a table that is only looked up."""
    vectors, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    looked_up = 0 if head is not None and head.weight is vectors else vectors.numel()
    return int(sum(p.numel() for p in model.parameters() if p.dim() > 1) - looked_up)


def _rate(facts: Facts) -> float:
    """Return a learning rate: the wider a model, the smaller."""
    rate = _RATE * (_WIDTH / facts.width) ** 2 * (_STUDENT if facts.student else 1)
    return min(_RATES[1], max(_RATES[0], float(f"{rate:.2g}")))


def _batch(facts: Facts, epochs: float, processes: int) -> int:
    """Return the rows of a step: few data are read in smaller steps, so that there are enough."""
    size = _BATCH[facts.student]
    while size > 1 and size * facts.tokens * facts.outputs > _MOST_OUTPUTS:
        size //= 2
    while size > _SMALLEST_BATCH and facts.rows * epochs / size < _FEWEST_STEPS:
        size //= 2
    return max(1, size // processes) * processes


def fastest(width: int) -> str:
    """Return bfloat16 where the processor computes in it and a model is wide enough to gain."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = can.get("avx512_bf16") or can.get("amx_bf16")
    return "bfloat16" if native and width >= _LEAST_WIDTH else "float32"
