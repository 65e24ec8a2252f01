"""Measure what a user waits for: the time from input to result, for several variants in turn.

Variants take turns of a few calls, so that a drift in the machine's speed affects all of them.  The
first call of a turn is not timed: it refills the caches that the others have emptied.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

Call = tuple[Any, dict[str, Any]]
_ROUNDS = 30
_TIMED = 3


def measure(
    models: Mapping[str, Model],
    samples: Sequence[Any],
    *,
    cells: Sequence[str] = (),
    seconds: float = 1.0,
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each model in each cell, `{name: {cell: ms}}`.

    Args:
        models: the models to compare, all of one task; all get the same inputs in turn.
        samples: inputs of the task, from which inputs of the needed sizes are made.
        cells: names from `Model.cells`; all of them if none is given.  Cells whose inputs a model
            cannot take are left out.
        seconds: about how long each model may take in each cell.

    """
    return {
        name: {cell: round(median(times) * 1000, 3) for cell, times in found.items()}
        for name, found in measure_times(models, samples, cells=cells, seconds=seconds).items()
    }


def measure_times(
    models: Mapping[str, Model],
    samples: Sequence[Any],
    *,
    cells: Sequence[str] = (),
    seconds: float = 1.0,
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every call that `measure` takes the median of."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for cell in cells or next(iter(models.values())).cells:
        calls = {name: model.cell(cell, samples) for name, model in models.items()}
        fit = {name: model for name, model in models.items() if calls[name][0]}
        for name, times in _alternate(fit, calls, seconds).items():
            found[name][cell] = times
    return found


def _alternate(
    models: Mapping[str, Model], calls: Mapping[str, Call], seconds: float
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in models}
    for name, model in models.items():
        _time(model, calls[name])
    end = time.perf_counter() + seconds * len(models)
    for _ in range(_ROUNDS):
        for name, model in models.items():
            _time(model, calls[name])
            times[name] += [_time(model, calls[name]) for _ in range(_TIMED)]
        if time.perf_counter() > end:
            break
    return times


def _time(model: Model, call: Call) -> float:
    """Answer, reading a piecewise answer to its end; return the seconds."""
    inputs, options = call
    start = time.perf_counter()
    answer = model(inputs, **options)
    if isinstance(answer, Iterator):
        deque(answer, maxlen=0)
    return time.perf_counter() - start
