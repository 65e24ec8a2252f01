"""The loop that writes: the prompt in pieces, then token by token, or several that were guessed.

A guess costs nothing but time: a token is taken only if it is the one that would have been chosen
anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from itertools import takewhile

from edgepack_runtime.generation.guess import Guesser
from edgepack_runtime.generation.reader import Reader
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Settings


def write(
    begin: Callable[[], Reader],
    prompt: Sequence[int],
    chooser: Chooser,
    settings: Settings,
    eos: Sequence[int],
    guesser: Guesser | None = None,
) -> Generator[int, None, None]:
    """Yield the tokens that follow a prompt, without those that end the text.

    The state is closed together with the iterator, so an abandoned call frees its memory.

    Args:
        begin: opens the graph with room for the prompt and the answer; called when the first token
            is asked for, so that an iterator that is never used holds nothing.
        prompt: the tokens before the first new one; those that the state holds are skipped.
        chooser: chooses the tokens.
        settings: when to end, and how many tokens to look up.
        eos: tokens that end the text.
        guesser: guesses tokens, if not by looking up; it is closed together with the state.

    """
    end = time.monotonic() + settings.max_time if settings.max_time else float("inf")
    ids, most = list(prompt), len(prompt) + settings.max_new_tokens
    guesser = guesser or Guesser(settings.prompt_lookup_num_tokens)
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
            guessed = guesser.guess(ids, most - len(ids) - 1)
            guessed = list(takewhile(logits.shape[1].__gt__, guessed))
            logits = reader.logits([ids[-1], *guessed])
    finally:
        reader.state.close()
        guesser.close()
