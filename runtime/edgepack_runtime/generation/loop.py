"""The loop that writes: the prompt in pieces, then one token at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgepack_runtime.engines import State
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Settings

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_PIECE = 512  # tokens of a prompt in one run; this bounds memory, and the delay of a cancelled call


def write(
    state: State, prompt: Sequence[int], settings: Settings, eos: Sequence[int]
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, without those that end the text.

    The state is closed together with the iterator, so an abandoned call frees its memory.

    Args:
        state: the graph's state, with room for the prompt and the answer.
        prompt: the tokens before the first new one; those that the state holds are skipped.
        settings: how to choose tokens, and when to end.
        eos: tokens that end the text.

    """
    chooser = Chooser(settings, prompt, eos)
    end = time.monotonic() + settings.max_time if settings.max_time else float("inf")
    try:
        logits = read(state, prompt)
        for _ in range(settings.max_new_tokens):
            token = chooser.choose(logits)
            if token in eos:
                return
            yield token
            if time.monotonic() > end:
                return
            logits = step(state, [token])
    finally:
        state.close()


def read(state: State, prompt: Sequence[int]) -> Array:
    """Run a prompt in pieces; return the logits [vocabulary] after its last token."""
    rest = list(prompt[state.length :])
    for start in range(0, len(rest), _PIECE):
        logits = step(state, rest[start : start + _PIECE])
    return logits


def step(state: State, ids: Sequence[int]) -> Array:
    """Run on more tokens; return the logits [vocabulary] after the last one."""
    logits: Array = all_logits(state, ids, last=True)[0]
    return logits


def all_logits(state: State, ids: Sequence[int], *, last: bool = False) -> Array:
    """Run on more tokens; return the logits [tokens, vocabulary], or only those of the last."""
    import numpy as np

    rows = [len(ids) - 1] if last else range(len(ids))
    feeds = {
        "input_ids": np.array([ids], dtype=np.int64),
        "rows": np.array(rows, dtype=np.int64),
    }
    return state.run(feeds)["logits"]
