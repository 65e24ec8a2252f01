"""An answer as it is written, for `for` and for `async for`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_END = ""


class Stream:
    """Pieces of text.  Closing it ends the answer and frees its memory."""

    def __init__(self, pieces: Generator[str, None, None]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        with self._lock:
            return next(self._pieces)

    def close(self) -> None:
        """End the answer; a piece that is being written in another thread is finished first."""
        with self._lock:
            self._pieces.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Wait for the next piece in another thread, so that the event loop goes on."""
        piece = await asyncio.to_thread(next, self, _END)
        if piece == _END:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """End the answer."""
        await asyncio.to_thread(self.close)
