"""Guess the next tokens: what followed the last ones when they stood in the text before.

Source: prompt lookup decoding, `PromptLookupCandidateGenerator` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 3  # tokens that must agree, for a start


def look_up(ids: Sequence[int], count: int) -> list[int]:
    """Return at most `count` tokens that may follow; none if nothing like it stood before.

    A longer agreement wins over a shorter one, then the latest place that has `count` tokens after
    it.
    """
    if count < 1:
        return []
    for size in range(min(_LONGEST, len(ids) - 1), 0, -1):
        end = list(ids[-size:])
        found: list[int] = []
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start] == end[0] and list(ids[start : start + size]) == end:
                found = max(found, list(ids[start + size : start + size + count]), key=len)
                if len(found) == count:
                    break
        if found:
            return found
    return []
