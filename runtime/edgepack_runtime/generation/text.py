"""Tokens to text, piece by piece: characters are never split, and stop texts may span tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTEXT = 8  # tokens of the prompt that decide how the first new ones are joined to it
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Pieces:
    """The text of an answer as it grows.

    Attributes:
        text: the text returned so far.
        stopped: whether a stop text occurred; it is not part of the text.

    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_CONTEXT:])
        self._start, self._read = 0, len(self._ids)
        self._stop = stop
        self._held = ""
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Take a token; return the text that is certain now, which may be empty."""
        self._ids.append(token)
        whole, before = self._decode(len(self._ids)), self._decode(self._read)
        if len(whole) <= len(before) or whole.endswith(_UNFINISHED):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._give(whole[len(before) :])

    def finish(self) -> str:
        """End the answer; return the text that was held back."""
        if self.stopped:
            return ""  # what came after the stop text is not part of the text
        rest = self._decode(len(self._ids))[len(self._decode(self._read)) :]
        piece = self._give(rest)
        held, self._held = self._held, ""  # nothing, if a stop text occurred
        self.text += held
        return piece + held

    def _decode(self, end: int) -> str:
        return str(self._tokenizer.decode(self._ids[self._start : end], skip_special_tokens=True))

    def _give(self, more: str) -> str:
        """Add to the held text; return the part that cannot belong to a stop text."""
        self._held += more
        found = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if found:
            piece, self._held = self._held[: min(found)], ""
            self.stopped = True
        else:
            size = len(self._held) - max((_begun(self._held, t) for t in self._stop), default=0)
            piece, self._held = self._held[:size], self._held[size:]
        self.text += piece
        return piece


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of a text begin a stop text."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)
