"""Python's garbage collector, out of the way while a model loads."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Suspend collection: what imports and engines make stays, so looking through it is lost time.

    It is a twentieth of a cold start.  If two threads load, the first to end turns it on again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
