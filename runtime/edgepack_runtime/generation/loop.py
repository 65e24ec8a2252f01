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

_PIECE = 512  # tokens of a prompt in one run: bounds memory, and what a cancelled call waits for


def write(
    state: State, prompt: Sequence[int], settings: Settings, eos: Sequence[int]
) -> Iterator[int]:
    """Yield the tokens that follow a prompt; those that end the text are not among them.

    The state is closed when the iterator is, so a call that is given up frees its memory.

    Args:
        state: of the graph, with room for the prompt and the answer.
        prompt: the tokens before the first one to write; those that the state holds are skipped.
        settings: how to pick, and when to end.
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
    """Run on more tokens; return the logits [tokens, vocabulary], or those of the last alone."""
    import numpy as np

    rows = [len(ids) - 1] if last else range(len(ids))
    feeds = {
        "input_ids": np.array([ids], dtype=np.int64),
        "rows": np.array(rows, dtype=np.int64),
    }
    return state.run(feeds)["logits"]
