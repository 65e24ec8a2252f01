"""The loop that writes: the prompt in pieces, then token by token, or several that were guessed.

A guess costs nothing but time: a token is taken only if it is the one that would have been chosen
anyway.  For the same text bit for bit, all runs must be of one kind: engines have another kernel
for a single row, which rounds differently.  So whoever guesses, or reuses what was read before,
never runs one row alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_runtime.engines import State
from edgepack_runtime.generation.guess import look_up
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Settings

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_PIECE = 512  # tokens of a prompt in one run; this bounds memory, and the delay of a cancelled call


@dataclass(frozen=True)
class Reader:
    """Runs a graph on tokens that follow those that its state holds."""

    state: State
    """The positions so far."""
    paired: bool = False
    """Never run one row alone."""

    def read(self, prompt: Sequence[int]) -> Array:
        """Run the rest of a prompt in pieces; return the logits [vocabulary] after its last."""
        rest = list(prompt[self.state.length :])
        for start in range(0, len(rest), _PIECE):
            logits = self.logits(rest[start : start + _PIECE], last=True)
        found: Array = logits[0]
        return found

    def logits(self, ids: Sequence[int], *, last: bool = False) -> Array:
        """Run on tokens; return the logits [tokens, vocabulary], or only those of the last."""
        import numpy as np

        length, count = self.state.length, len(ids)
        alone = self.paired and count == 1
        feeds = {
            "input_ids": np.array([[*ids, *ids] if alone else ids], dtype=np.int64),
            "rows": np.array([count - 1] if last else range(count), dtype=np.int64),
        }
        found = self.state.run(feeds)["logits"]
        if alone:
            self.state.truncate(length + 1)
        return found


def write(
    begin: Callable[[], Reader],
    prompt: Sequence[int],
    chooser: Chooser,
    settings: Settings,
    eos: Sequence[int],
) -> Generator[int, None, None]:
    """Yield the tokens that follow a prompt, without those that end the text.

    The state is closed together with the iterator, so an abandoned call frees its memory.

    Args:
        begin: opens the graph with room for the prompt and the answer; called when the first token
            is asked for, so that an iterator that is never used holds nothing.
        prompt: the tokens before the first new one; those that the state holds are skipped.
        chooser: chooses the tokens.
        settings: when to end, and how many tokens to guess.
        eos: tokens that end the text.

    """
    end = time.monotonic() + settings.max_time if settings.max_time else float("inf")
    ids, most = list(prompt), len(prompt) + settings.max_new_tokens
    guessed: list[int] = []
    reader = begin()
    try:
        logits = reader.read(prompt)[None]
        while True:
            for row, guess in zip(logits, [*guessed, None], strict=True):
                token = chooser.choose(row)
                if token in eos:
                    return
                ids.append(token)
                yield token
                if len(ids) == most or chooser.complete or time.monotonic() > end:
                    return
                if token != guess:
                    break
            reader.state.truncate(len(ids) - 1)
            guessed = look_up(ids, min(settings.prompt_lookup_num_tokens, most - len(ids) - 1))
            logits = reader.logits([ids[-1], *guessed])
    finally:
        reader.state.close()


def all_logits(state: State, ids: Sequence[int]) -> Array:
    """Run on more tokens; return the logits [tokens, vocabulary]."""
    return Reader(state).logits(ids)
