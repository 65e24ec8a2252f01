"""Measure what a user waits for: text in to result out, variants in turn.

Variants take turns of a few calls, so that a drift of the machine's speed hits all alike.  The
first call of a turn is not timed: it brings back the caches that the others have emptied.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from edgepack_runtime.inputs.text import TextEncoder

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

CELLS = ((16, 1), (32, 1), (128, 1), (16, 8))
_ROUNDS = 30
_TIMED = 3


def measure(
    models: Mapping[str, Model],
    texts: Sequence[str],
    *,
    cells: Sequence[tuple[int, int]] = CELLS,
    seconds: float = 1.0,
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each model in each cell, `{name: {"tokens×rows": ms}}`.

    Args:
        models: what to compare; all see the same texts in turn.
        texts: words to make texts of the wanted lengths from.
        cells: (tokens, rows) pairs; those beyond a model's `max_length` are left out.
        seconds: about how long each model may take in each cell.

    """
    return {
        name: {cell: round(median(times) * 1000, 3) for cell, times in found.items()}
        for name, found in measure_times(models, texts, cells=cells, seconds=seconds).items()
    }


def measure_times(
    models: Mapping[str, Model],
    texts: Sequence[str],
    *,
    cells: Sequence[tuple[int, int]] = CELLS,
    seconds: float = 1.0,
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every call that `measure` sums up."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for tokens, rows in cells:
        fit = {n: m for n, m in models.items() if tokens <= m.task.text.max_length}
        if not fit:
            continue
        inputs = {n: [text_of(m.encoder, texts, tokens)] * rows for n, m in fit.items()}
        for name, times in _alternate(fit, inputs, seconds).items():
            found[name][f"{tokens}×{rows}"] = times
    return found


def _alternate(
    models: Mapping[str, Model], inputs: Mapping[str, list[str]], seconds: float
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in models}
    for name, model in models.items():
        model(inputs[name])
    end = time.perf_counter() + seconds * len(models)
    for _ in range(_ROUNDS):
        for name, model in models.items():
            size = len(inputs[name])
            model(inputs[name], batch_size=size)
            for _ in range(_TIMED):
                start = time.perf_counter()
                model(inputs[name], batch_size=size)
                times[name].append(time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return times


def text_of(encoder: TextEncoder, texts: Sequence[str], tokens: int) -> str:
    """Join words of `texts` into a text of `tokens` tokens, special ones included.

    One or two fewer if no word is short enough to fill the end.
    """
    words = list(dict.fromkeys(" ".join(texts).split())) or ["a"]
    picked: list[str] = []
    tried = 0
    while tried < len(words):
        word = words[(len(picked) + tried) % len(words)]
        encoded = encoder.encode(" ".join([*picked, word]))
        size = len(encoded.first.ids)
        if size > tokens or len(encoded.windows) > 1:  # cut: it would be longer
            tried += 1
            continue
        picked, tried = [*picked, word], 0
        if size == tokens:
            break
    return " ".join(picked)
