"""A short test of the learning rate, because a rate that is too large shows within a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgepack.compress.job import Job
    from edgepack.compress.schedule import Course

_STEPS, _RISING = 30, 10
_JUDGED = 256  # held-out rows
_SMALLER = 1 / 3
_TRIES = 3


def settle(job: Job, course: Course, order: Sequence[int]) -> dict[float, float]:
    """Return {rate: loss on held-out rows after a short trial}.

    The first trial uses the course's rate, and each further one a third of the rate before, for as
    long as the loss gets smaller.  A smaller rate learns less in a short trial, so it wins only if
    the larger one does harm.  The model is left unchanged.

    Args:
        job: the training.
        course: its settings; its learning rate is the first candidate.
        order: rows to learn from, in random order.

    """
    found: dict[float, float] = {}
    rate = course.learning_rate
    for _ in range(_TRIES):
        found[rate] = _trial(job, course, rate, order)
        if found[rate] > min(found.values()):
            break
        rate = float(f"{rate * _SMALLER:.2g}")
    return found


def best(found: dict[float, float]) -> float:
    """Return the rate with the smallest loss; of two equal ones, the larger rate."""
    return min(found, key=lambda rate: (found[rate], -rate))


def _trial(job: Job, course: Course, rate: float, order: Sequence[int]) -> float:
    import torch

    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    weights = [p for p in job.model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(weights, lr=rate)
    size = min(course.batch_size, len(order))
    job.model.train()
    for step in range(_STEPS):
        at = step * size % max(1, len(order) - size + 1)
        adam.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / _RISING)
        loss = _loss(job, course, order[at : at + size])
        if not math.isfinite(float(loss.detach())):
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        adam.zero_grad()
    figure = held_out_loss(job, course, job.held[:: max(1, len(job.held) // _JUDGED)])
    adam.zero_grad()
    job.model.load_state_dict(before)
    return figure if math.isfinite(figure) else math.inf


def held_out_loss(job: Job, course: Course, rows: Sequence[int]) -> float:
    """Return the mean loss of a model on rows it does not learn from."""
    import torch

    job.model.eval()
    total = 0.0
    size = course.batch_size
    ranked = sorted(rows, key=job.lengths.__getitem__)
    with torch.no_grad():
        for at in range(0, len(ranked), size):
            picked = ranked[at : at + size]
            total += float(_loss(job, course, picked)) * len(picked)
    return total / len(ranked)


def _loss(job: Job, course: Course, rows: Sequence[int]) -> Any:
    import torch

    device = next(job.model.parameters()).device
    batch = {name: value.to(device) for name, value in job.collate(rows).items()}
    half = getattr(torch, course.precision)
    mixed = half is not torch.float32
    with torch.autocast(device.type, dtype=half) if mixed else nullcontext():
        return job.loss(job.model, batch)
