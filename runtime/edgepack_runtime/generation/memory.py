"""What a dialogue has said so far, as its model holds it: the next turn reads only what is new.

A memory can be saved and loaded again, so that a device reads a long system prompt once in its
life.  A saved memory belongs to one variant of one bundle; its digest is checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime.engines import LastingState, Session
from edgepack_runtime.engines._adapted import use_adapter
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.paths import write_whole

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_STEP = 256  # positions that a memory grows by
_DIGEST = 32  # bytes of sha256 before the content of a file
_ABOUT, _IDS, _IDENTITY = "about", "ids", "identity"


class Memory:
    """The positions of one dialogue; pass it to each call: `model(messages, memory=memory)`.

    A call reads what its prompt adds to what the memory holds, and forgets what differs.  One call
    at a time may use a memory.  It takes memory of the device until it is closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._identity = ""
        self._session: Session | None = None
        self._state: LastingState | None = None
        self._saved: Mapping[str, Array] = {}

    @property
    def length(self) -> int:
        """Count the tokens that it holds."""
        return len(self._ids)

    def begin(self, session: Session, identity: str, prompt: Sequence[int], room: int) -> _Lent:
        """Return the state of a call, which holds what was read of the prompt before.

        Args:
            session: the graph that runs.
            identity: the digest of the variant's files.
            prompt: the tokens before the first new one.
            room: positions for prompt and answer.

        Raises:
            InputError: another call uses it, or the engine's states do not outlive a call.

        """
        if not self._lock.acquire(blocking=False):
            raise InputError("another call uses this memory; give each dialogue its own")
        try:
            state = self._open(session, identity, room)
        except BaseException:
            self._lock.release()
            raise
        pairs = zip(self._ids, prompt[:-1], strict=False)
        same = next((at for at, (old, new) in enumerate(pairs) if old != new), None)
        state.truncate(min(len(self._ids), len(prompt) - 1) if same is None else same)
        del self._ids[state.length :]
        return _Lent(state, self._ids, self._lock)

    def _open(self, session: Session, identity: str, room: int) -> LastingState:
        """Open or grow the state; start again if the model is another one now."""
        if self._session is not session and self._state:
            saved = self._state.arrays() if identity and identity == self._identity else {}
            self._drop()
            self._saved = saved
        if not identity or identity != self._identity:
            self._ids.clear()
            self._saved = {}
        self._session, self._identity = session, identity
        room = -(-room // _STEP) * _STEP
        if self._state is None:
            state = session.begin(room)
            if not isinstance(state, LastingState):
                state.close()
                raise InputError("this variant's engine cannot keep what it read; leave memory out")
            if self._saved:
                state.restore(self._saved)
            self._state, self._saved = state, {}
        self._state.grow(room)
        return self._state

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what it holds to a file, in one step.

        Raises:
            InputError: it holds nothing yet, or a call uses it.
            OSError: the disk is full or read-only.

        """
        import numpy as np

        if not self._lock.acquire(blocking=False):
            raise InputError("a call uses this memory; save it after the answer")
        try:
            held = self._state.arrays() if self._state else dict(self._saved)
        finally:
            self._lock.release()
        if not held or not self._identity:
            raise InputError("this memory holds nothing that can be saved; use it in a call first")
        about = json.dumps({_IDENTITY: self._identity, _IDS: self._ids}).encode()
        stream = io.BytesIO()
        arrays: dict[str, Any] = {_ABOUT: np.frombuffer(about, np.uint8), **held}
        np.savez(stream, **arrays)
        content = stream.getvalue()
        write_whole(Path(path), hashlib.sha256(content).digest() + content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Memory:
        """Read a saved memory.  A call of another model begins again, without an error.

        Raises:
            InputError: there is no such file.
            TrustError: the file is damaged, or is not a memory.

        """
        import numpy as np

        try:
            whole = memoryview(Path(path).read_bytes())
        except OSError as exc:
            raise InputError(f"{path}: {exc.strerror}; save a memory there first") from exc
        if hashlib.sha256(whole[_DIGEST:]).digest() != whole[:_DIGEST]:
            raise TrustError(f"{path} is damaged, or is not a saved memory; delete it")
        made = cls()
        try:
            with np.load(io.BytesIO(whole[_DIGEST:]), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop(_ABOUT).tobytes())
            made._ids, made._identity = list(about[_IDS]), str(about[_IDENTITY])
        except (ValueError, KeyError, TypeError, OSError) as exc:
            raise TrustError(f"{path} is not a saved memory: {exc}") from exc
        made._saved = arrays
        return made

    def belongs_to(self, identity: str) -> bool:
        """Tell whether it was saved with these files of a variant."""
        return self._identity == identity

    def close(self) -> None:
        """Free its memory, once no call uses it; it can be used again, and is empty then."""
        with self._lock:
            self._drop()
            self._ids.clear()

    def _drop(self) -> None:
        if self._state:
            self._state.close()
        self._state, self._saved = None, {}


class _Lent:
    """The state of a memory for one call: the tokens that it reads are remembered."""

    def __init__(self, state: LastingState, ids: list[int], lock: threading.Lock) -> None:
        self._state = state
        self._ids = ids
        self._lock = lock
        self._open = True

    @property
    def length(self) -> int:
        """Count the positions that it holds."""
        return self._state.length

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and remember their tokens."""
        found = self._state.run(feeds)
        self._ids.extend(int(token) for token in feeds["input_ids"][0])
        return found

    def adapt(self, arrays: Mapping[str, Array]) -> None:
        """Take the arrays of an adapter."""
        use_adapter(self._state, arrays)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self._state.truncate(length)
        del self._ids[length:]

    def close(self) -> None:
        """End the call; the memory holds what was read."""
        if self._open:
            self._open = False
            self._lock.release()
