"""Beam search: several answers are followed at once, and the most probable one is given.

Source: `GenerationMixin._beam_search` of transformers 4.57, for one input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgepack_runtime.engines import BeamState
from edgepack_runtime.generation.pairs import forbid, rows_logits
from edgepack_runtime.generation.scores import processed
from edgepack_runtime.generation.settings import PairSettings

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_NEVER = -1e9  # a score that loses against any other


@dataclass(frozen=True)
class Source:
    """What is answered."""

    ids: Sequence[int]
    """The tokens of the input."""
    held: Mapping[str, Array]
    """What the decoder looks back at, for one row."""


@dataclass
class _Beams:
    """The answers so far, best first."""

    running: list[list[int]]
    scores: Array
    """Of the running ones [beams]."""
    ended: list[list[int]] = field(default_factory=list)
    ended_scores: list[float] = field(default_factory=list)
    hopeful: bool = True
    """Whether a running answer may still beat those that ended."""


def search(
    state: BeamState,
    source: Source,
    start: Sequence[int],
    settings: PairSettings,
    eos: Sequence[int],
) -> list[int]:
    """Return the tokens of the best answer, with those that it started with and that ended it.

    Args:
        state: an empty state of the decoder; it is closed.
        source: the input.
        start: tokens that every answer starts with; the first one is not counted.
        settings: the rules; `max_new_tokens` counts the rest of `start` too.
        eos: tokens that end an answer.

    """
    import numpy as np

    count = settings.num_beams
    held = {name: np.repeat(array, count, axis=0) for name, array in source.held.items()}
    scores = np.array([0.0] + [_NEVER] * (count - 1), dtype=np.float32)
    beams = _Beams([list(start) for _ in range(count)], scores)
    try:
        for token in start[:-1]:
            rows_logits(state, held, [token] * count)
        while True:
            logits = rows_logits(state, held, [ids[-1] for ids in beams.running])
            found = np.stack(
                [
                    _scores(row, ids, source.ids, settings, eos)
                    for row, ids in zip(logits, beams.running, strict=True)
                ]
            )
            chosen, over = _advance(beams, found, settings, eos)
            if over or not beams.hopeful:
                return beams.ended[0]
            state.reorder(chosen)
    finally:
        state.close()


def _scores(
    logits: Array, ids: list[int], source: Sequence[int], settings: PairSettings, eos: Sequence[int]
) -> Array:
    """Return the log-probabilities of the next token of one answer, by the rules."""
    import numpy as np

    top = logits.max()
    chances = logits - (np.log(np.exp(logits - top).sum()) + top)
    found = processed(chances, ids, ids[1:], settings, eos)
    return forbid(found, ids, source, settings)


def _advance(
    beams: _Beams, scores: Array, settings: PairSettings, eos: Sequence[int]
) -> tuple[list[int], bool]:
    """Take one token more; return the rows that go on, and whether no answer can go on."""
    import numpy as np

    count, size = scores.shape
    total = (scores + beams.scores[:, None]).reshape(-1)
    best = np.argsort(-total, kind="stable")[: max(2, 1 + len(eos)) * count]
    answers = [[*beams.running[at // size], int(at % size)] for at in best]
    length = len(answers[0])
    at_end = length >= settings.max_new_tokens + 1
    hits = np.array([at_end or ids[-1] in eos for ids in answers])
    _end(beams, answers, np.where(hits, total[best], -np.inf)[:count], settings)
    going = total[best] + np.where(hits, np.float32(_NEVER), np.float32(0.0))
    order = np.argsort(-going, kind="stable")[:count]
    beams.running = [answers[at] for at in order]
    beams.scores = going[order].astype(np.float32)
    full = len(beams.ended) >= count
    reach = settings.max_new_tokens if _waits(settings) else length - 1
    possible = beams.scores[0] / reach**settings.length_penalty
    worst = min(beams.ended_scores) if full else _NEVER
    beams.hopeful = bool(beams.hopeful and possible > worst)
    over = bool(hits.all()) or (full and settings.early_stopping is True)
    return [int(best[at] // size) for at in order], over


def _waits(settings: PairSettings) -> bool:
    return settings.early_stopping == "never" and settings.length_penalty > 0


def _end(
    beams: _Beams, answers: Sequence[list[int]], scores: Array, settings: PairSettings
) -> None:
    """Add the answers that end now, and retain the best ones; minus infinity does not end."""
    count = settings.num_beams
    if not beams.hopeful or (len(beams.ended) >= count and settings.early_stopping is True):
        return
    length = len(answers[0]) - 1
    found = list(zip(beams.ended_scores, beams.ended, strict=True))
    found += [
        (float(score) / length**settings.length_penalty, ids)
        for score, ids in zip(scores, answers, strict=False)
        if score > float("-inf")
    ]
    found.sort(key=lambda item: -item[0])  # stable: what ended first wins
    beams.ended_scores = [score for score, _ in found[:count]]
    beams.ended = [ids for _, ids in found[:count]]
