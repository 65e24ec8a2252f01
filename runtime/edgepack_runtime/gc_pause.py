"""Python's garbage collector, out of the way while a model loads."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Suspend collection: objects created while loading live for the whole process.

    Scanning them is wasted work, a twentieth of a cold start.  If two threads load, the first to
    finish turns collection on again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
