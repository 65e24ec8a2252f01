"""Let threads take turns at a disk, one storage operation at a time, in an order from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Semaphore, Thread, local
from typing import Any

from edgepack_runtime.store.storage import Disk

Work = Callable[[], object]


class Turns:
    """Runs threads so that exactly one goes on at any time, picked anew at every operation."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
        self._mine = local()
        self._arrived = Semaphore(0)
        self._go: list[Semaphore] = []
        self._alive: set[int] = set()
        self._failures: list[BaseException] = []

    def run(self, works: Sequence[Work]) -> int:
        """Run them all to their ends; return how many turns that took.

        Raises:
            BaseException: what the first of them raised.

        """
        self._go = [Semaphore(0) for _ in works]
        self._alive = set(range(len(works)))
        threads = [Thread(target=self._one, args=item) for item in enumerate(works)]
        for thread in threads:
            thread.start()
            self._arrived.acquire()
        turns = 0
        while self._alive:
            self._go[self._rng.choice(sorted(self._alive))].release()
            self._arrived.acquire()
            turns += 1
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        return turns

    def step(self) -> None:
        """Wait for this thread's turn."""
        self._arrived.release()
        self._go[self._mine.number].acquire()

    def _one(self, number: int, work: Work) -> None:
        self._mine.number = number
        self.step()
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 (raised again by `run`)
            self._failures.append(exc)
        self._alive.discard(number)
        self._arrived.release()


class TurnsDisk(Disk):
    """A disk whose every operation waits for its turn.  Nothing is synced: no power is cut here."""

    def __init__(self, root: Path, turns: Turns) -> None:
        super().__init__(root)
        self._turns = turns

    def sync(self, path: str) -> None:  # noqa: ARG002 (Storage)
        """Take a turn."""
        self._turns.step()

    def sync_folder(self, path: str) -> None:  # noqa: ARG002 (Storage)
        """Take a turn."""
        self._turns.step()

    def lock(
        self, path: str, *, shared: bool = False, own: bool = False
    ) -> AbstractContextManager[bool]:
        """Take a turn, then lock."""
        self._turns.step()
        return super().lock(path, shared=shared, own=own)


def _in_turn(name: str) -> Callable[..., Any]:
    def operation(self: TurnsDisk, *args: Any) -> Any:
        self._turns.step()
        return getattr(Disk, name)(self, *args)

    return operation


for _name in (
    "read",
    "digest",
    "size",
    "names",
    "make_folder",
    "create",
    "append",
    "truncate",
    "overwrite",
    "rename",
    "remove",
    "map",
):
    setattr(TurnsDisk, _name, _in_turn(_name))
