"""What is guessed from the text so far."""

from __future__ import annotations

import pytest

from edgepack_runtime.generation.guess import look_up


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
