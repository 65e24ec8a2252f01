"""Guess the next tokens: from what stood in the text before, or by a small model, the draft.

Source: prompt lookup decoding and assisted decoding, `PromptLookupCandidateGenerator` and
`AssistedCandidateGenerator` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgepack_runtime.generation.reader import Reader

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

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


class Guesser:
    """Guesses the next tokens of one text: looked up if possible, else written by a draft."""

    def __init__(self, looked_up: int = 0, draft: Draft | None = None) -> None:
        self._looked_up = looked_up
        self._draft = draft

    @property
    def guesses(self) -> bool:
        """Tell whether it ever guesses."""
        return self._looked_up > 0 or self._draft is not None

    def guess(self, ids: Sequence[int], room: int) -> list[int]:
        """Return at most `room` tokens that may follow; maybe none."""
        found = look_up(ids, min(self._looked_up, room))
        return found if found or self._draft is None else self._draft.guess(ids, room)

    def close(self) -> None:
        """Free the memory of the draft."""
        if self._draft:
            self._draft.close()


class Draft:
    """A small model with the tokens of the large one; it takes what it finds most probable."""

    def __init__(self, begin: Callable[[], Reader], most: int) -> None:
        """Prepare a draft; nothing is read before the first guess.

        Args:
            begin: opens the small model with room for the whole text.
            most: how many tokens to guess at most.

        """
        self._begin = begin
        self._most = self._count = most
        self._reader: Reader | None = None
        self._held: list[int] = []
        self._guessed: list[int] = []

    def guess(self, ids: Sequence[int], room: int) -> list[int]:
        """Return at most `room` tokens that may follow."""
        self._adapt(ids)
        count = min(self._count, room)
        if count < 1:
            return []
        logits = self._read(ids)
        found = [int(logits.argmax())]
        while len(found) < count:
            (logits,) = self._open().logits(found[-1:])
            found.append(int(logits.argmax()))
        self._held, self._guessed = [*ids, *found[:-1]], found
        return found

    def _adapt(self, ids: Sequence[int]) -> None:
        """Guess more after all guesses were right, less after a wrong one."""
        before = len(self._held) - len(self._guessed) + 1
        if self._guessed:
            right = list(ids[before : before + len(self._guessed)]) == self._guessed
            self._count = min(self._most, self._count + 2) if right else max(1, self._count - 1)

    def _read(self, ids: Sequence[int]) -> Array:
        """Read what is new of a text; return the logits [vocabulary] after its last token."""
        reader = self._open()
        pairs = zip(self._held, ids[:-1], strict=False)
        same = next((at for at, (old, new) in enumerate(pairs) if old != new), None)
        reader.state.truncate(min(len(self._held), len(ids) - 1) if same is None else same)
        return reader.read(ids)

    def _open(self) -> Reader:
        if self._reader is None:
            self._reader = self._begin()
        return self._reader

    def close(self) -> None:
        """Free its memory."""
        if self._reader:
            self._reader.state.close()
