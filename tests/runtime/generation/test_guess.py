"""What is guessed from the text so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgepack_runtime.generation.guess import Draft, Guesser, look_up
from edgepack_runtime.generation.loop import write
from edgepack_runtime.generation.reader import Reader
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Settings


@pytest.mark.parametrize(
    ("ids", "count", "wanted"),
    [
        ([], 4, []),
        ([7], 4, []),
        ([1, 2, 3], 4, []),
        ([1, 2, 3, 1, 2], 0, []),
        ([1, 2, 3, 1, 2], 4, [3, 1, 2]),
        ([1, 2, 3, 4, 5, 1, 2], 2, [3, 4]),
        ([9, 1, 5, 5, 1, 6, 6, 9, 1], 2, [5, 5]),  # two that agree, before one that is nearer
        ([1, 5, 5, 1, 6, 6, 1], 2, [6, 6]),  # the nearer of two places
        ([8, 8, 8, 8, 8, 8, 8], 3, [8, 8, 8]),  # as many as asked for, in a text that repeats
    ],
)
def test_what_followed_before_may_follow_again(
    ids: list[int], count: int, wanted: list[int]
) -> None:
    """The longest agreement wins, then the latest place with enough tokens after it."""
    assert look_up(ids, count) == wanted


class _Counting:
    """A state of a model that expects the next number; it records what it reads."""

    def __init__(self) -> None:
        self.length, self.closed, self.read = 0, False, 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Expect, after each token, the next number below 100."""
        (ids,) = feeds["input_ids"]
        self.length, self.read = self.length + len(ids), self.read + len(ids)
        return {"logits": np.eye(100, dtype=np.float32)[(ids[feeds["rows"]] + 1) % 100]}

    def truncate(self, length: int) -> None:
        """Forget."""
        self.length = min(self.length, length)

    def close(self) -> None:
        """End."""
        self.closed = True


def test_a_draft_writes_ahead_and_reads_each_token_once() -> None:
    """Right guesses are in its state already; after wrong ones, only what differs is read."""
    state = _Counting()
    draft = Draft(lambda: Reader(state), 4)
    assert draft.guess([1, 2, 3], 10) == [4, 5, 6, 7]
    assert state.read == 6  # three of the text, and all guesses but the last
    assert draft.guess([1, 2, 3, 4, 5, 6, 7, 8], 10) == [9, 10, 11, 12]
    assert state.read == 6 + 2 + 3
    assert draft.guess([1, 2, 3, 4, 5, 6, 7, 8, 50], 10) == [51, 52, 53]
    assert state.read == 11 + 1 + 2
    draft.close()
    assert state.closed


def test_a_draft_that_is_wrong_guesses_less() -> None:
    """Down to one token; and more again once it is right, up to the limit."""
    draft, ids, sizes = Draft(lambda: Reader(_Counting()), 4), [1], []
    for right in (False, False, False, False, True, True, True):
        guessed = draft.guess(ids, 10)
        sizes.append(len(guessed))
        ids += [*guessed, guessed[-1] + 1] if right else [77]
    assert sizes == [4, 3, 2, 1, 1, 3, 4]


def test_a_draft_stays_within_the_room_that_is_left() -> None:
    """At the end of a text there is nothing to guess, and nothing is opened."""
    draft = Draft(lambda: pytest.fail("opened"), 4)
    assert draft.guess([1, 2], 0) == []
    draft.close()


def test_what_stood_there_before_is_cheaper_than_a_draft() -> None:
    """The draft is asked only where nothing can be looked up."""
    guesser = Guesser(2, Draft(lambda: Reader(_Counting()), 1))
    assert guesser.guess([5, 6, 7, 5, 6], 10) == [7, 5]
    assert guesser.guess([5, 6, 7, 8], 10) == [9]
    assert guesser.guesses
    assert not Guesser().guesses


class _Strict(_Counting):
    """A model that fails on a token that its vocabulary lacks, as engines do."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse numbers from 100 on."""
        assert int(feeds["input_ids"].max()) < 100
        return super().run(feeds)


class _Beyond(Guesser):
    """A draft with more rows than tokens may guess a number that is no token."""

    def guess(self, ids: Sequence[int], room: int) -> list[int]:
        """Guess right once, then beyond the vocabulary."""
        return [(ids[-1] + 1) % 100, 500][:room]


def test_a_guess_beyond_the_vocabulary_is_not_read() -> None:
    """The text is what it is without such guesses."""
    settings = Settings(max_new_tokens=8)
    reader = Reader(_Strict(), paired=True)
    found = write(lambda: reader, [1, 2], Chooser(settings, [1, 2], []), settings, [], _Beyond())
    assert list(found) == [3, 4, 5, 6, 7, 8, 9, 10]
