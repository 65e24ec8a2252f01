"""A disk that can lose power: what may be left after a cut, enumerated.

Strict on purpose.  Bytes that were not synced may be absent, torn, zeros, garbage or there; of the
changes to folders that were not synced any subset may have happened, and a rename counts as two.
A folder is a name in the folder above it: where that was lost, all in it is.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

State = tuple[tuple[str, bytes | None], ...]  # None for a folder
Hook = Callable[[str], None]


@dataclass
class _File:
    """A file, or a folder, which has no bytes."""

    folder: bool = False
    durable: bytes = b""
    current: bytes = b""

    def outcomes(self) -> list[bytes]:
        """Return what a cut may leave of the bytes: none of the change, torn, zeros, noise, all."""
        old, new = self.durable, self.current
        if old == new:
            return [new]
        half = max(1, len(new) // 2)
        torn = new[:half] + old[half:]
        zeros = bytes(a if i < len(old) and a == old[i] else 0 for i, a in enumerate(new))
        noise = bytes(a if i < len(old) and a == old[i] else a ^ 0x5A for i, a in enumerate(new))
        return list(dict.fromkeys([old, torn, zeros, noise, new]))


def _above(path: str) -> str:
    """Return the folder that a name stands in; that of the store's own folder is `..`."""
    return path.rpartition("/")[0] if path else ".."


@dataclass
class CrashDisk:
    """A `Storage` in memory.

    before: called with the name of each operation that changes something, before it happens.
    drop: numbers of sync operations that silently do nothing (mutation).
    """

    root: Path = Path()
    room: int = 1 << 30
    before: Hook | None = None
    drop: frozenset[int] = frozenset()
    syncs: int = 0
    _names: dict[str, _File] = field(default_factory=dict)
    _durable: dict[str, _File] = field(default_factory=dict)
    _pending: list[tuple[str, _File | None]] = field(default_factory=list)

    @classmethod
    def of(cls, state: State, **settings: object) -> CrashDisk:
        """Return a disk as it comes up after a cut."""
        disk = cls(**settings)  # type: ignore[arg-type]
        disk._names = {
            path: _File(content is None, content or b"", content or b"") for path, content in state
        }
        disk._durable = dict(disk._names)
        return disk

    def now(self) -> State:
        """Return what is there while the power is on."""
        there = sorted(self._names.items())
        return tuple((path, None if file.folder else file.current) for path, file in there)

    def states(self, limit: int, rng: random.Random) -> Iterator[State]:
        """Yield what a cut now may leave: all of it, or a sample of `limit`."""
        files = {id(f): f for f in (*self._durable.values(), *self._names.values())}
        files |= {id(f): f for _, f in self._pending if f is not None}
        dirty = [f for f in files.values() if f.durable != f.current]
        choices = [f.outcomes() for f in dirty]
        total = 2 ** len(self._pending)
        for outcomes in choices:
            total *= len(outcomes)
        if total <= limit:
            for mask in product((False, True), repeat=len(self._pending)):
                for picked in product(*choices):
                    yield self._state(mask, dict(zip(map(id, dirty), picked, strict=True)))
            return
        for _ in range(limit):
            chosen = tuple(rng.random() < 0.5 for _ in self._pending)
            some = [rng.choice(outcomes) for outcomes in choices]
            yield self._state(chosen, dict(zip(map(id, dirty), some, strict=True)))

    def _state(self, mask: tuple[bool, ...], bytes_of: dict[int, bytes]) -> State:
        names = dict(self._durable)
        for (path, file), happened in zip(self._pending, mask, strict=True):
            if happened and file is None:
                names.pop(path, None)
            elif happened and file is not None:
                names[path] = file
        there: dict[str, bytes | None] = {}
        for path, file in sorted(names.items()):  # a folder comes before what is in it
            if _above(path) == ".." or _above(path) in there:
                there[path] = None if file.folder else bytes_of.get(id(file), file.durable)
        return tuple(there.items())

    def _do(self, name: str) -> None:
        if self.before:
            self.before(name)

    def _link(self, path: str, file: _File | None) -> None:
        self._pending.append((path, file))
        if file is None:
            del self._names[path]
        else:
            self._names[path] = file

    def _file(self, path: str) -> _File:
        if path not in self._names or self._names[path].folder:
            raise FileNotFoundError(path)
        return self._names[path]

    def read(self, path: str, size: int = -1, start: int = 0) -> bytes:
        """Return the bytes as programs see them now."""
        content = self._file(path).current[start:]
        return content if size < 0 else content[:size]

    def digest(self, path: str) -> str:
        """Return the sha256 of the bytes as programs see them now."""
        return hashlib.sha256(self._file(path).current).hexdigest()

    def size(self, path: str) -> int:
        """Return the size as programs see it now."""
        return len(self._names[path].current) if path in self._names else -1

    def names(self, folder: str) -> list[str]:
        """Return the names as programs see them now."""
        return sorted(p.rpartition("/")[2] for p in self._names if _above(p) == folder)

    def make_folder(self, path: str) -> None:
        """Make a folder under a name that may not last, and the store's own before it."""
        for folder in dict.fromkeys(("", path)):
            if folder not in self._names:
                self._do(f"make_folder {folder}")
                self._link(folder, _File(folder=True))

    def create(self, path: str) -> None:
        """Make an empty file under a name that may not last."""
        if _above(path) not in self._names:
            raise FileNotFoundError(path)
        self._do(f"create {path}")
        self._link(path, _File())

    def append(self, path: str, content: bytes) -> None:
        """Write at the end."""
        self._do(f"append {path}")
        self._file(path).current += content

    def truncate(self, path: str, size: int) -> None:
        """Cut."""
        file = self._file(path)
        self._do(f"truncate {path}")
        file.current = file.current[:size]

    def overwrite(self, path: str, content: bytes) -> None:
        """Write over the beginning."""
        self._do(f"overwrite {path}")
        file = self._file(path)
        file.current = content + file.current[len(content) :]

    def sync(self, path: str) -> None:
        """Make the bytes durable, unless this sync is dropped."""
        self._do(f"sync {path}")
        if self._synced():
            self._file(path).durable = self._file(path).current

    def sync_folder(self, path: str) -> None:
        """Make the names durable, unless this sync is dropped."""
        self._do(f"sync_folder {path}")
        if not self._synced():
            return
        rest = []
        for name, file in self._pending:
            if _above(name) != path:
                rest.append((name, file))
            elif file is None:
                self._durable.pop(name, None)
            else:
                self._durable[name] = file
        self._pending = rest

    def rename(self, old: str, new: str) -> None:
        """Link the new name and unlink the old one: two changes to folders."""
        self._do(f"rename {old} {new}")
        file = self._file(old)
        self._link(new, file)
        self._link(old, None)

    def remove(self, path: str) -> None:
        """Unlink."""
        if path in self._names:
            self._do(f"remove {path}")
            self._link(path, None)

    def free(self) -> int:
        """Return the room left."""
        return self.room - sum(len(file.current) for file in self._names.values())

    def map(self, path: str) -> memoryview:
        """Return the bytes as programs see them now."""
        return memoryview(self._file(path).current)

    def lock(
        self,
        path: str,  # noqa: ARG002 (Storage)
        *,
        shared: bool = False,  # noqa: ARG002 (Storage)
        own: bool = False,  # noqa: ARG002 (Storage)
    ) -> AbstractContextManager[bool]:
        """Nobody else is there, so no file is made."""
        return nullcontext(enter_result=True)

    def _synced(self) -> bool:
        self.syncs += 1
        return self.syncs not in self.drop
