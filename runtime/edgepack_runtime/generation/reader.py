"""Runs a decoder on tokens that follow those that its state holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_runtime.engines import State

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_PIECE = 512  # tokens of a prompt in one run; this bounds memory, and the delay of a cancelled call


@dataclass(frozen=True)
class Reader:
    """A decoder and what it has read.

    For the same text bit for bit, all runs must be of one kind: engines have another kernel for a
    single row, which rounds differently.  So whoever guesses, or reuses what was read before, never
    runs one row alone.
    """

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


def all_logits(state: State, ids: Sequence[int]) -> Array:
    """Run on more tokens; return the logits [tokens, vocabulary]."""
    return Reader(state).logits(ids)
