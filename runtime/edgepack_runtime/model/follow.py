"""A model that follows its store: it switches to a new release without losing a call."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.model.load import load
from edgepack_runtime.model.model import Model
from edgepack_runtime.store.reader import Reader

_log = logging.getLogger(__name__)
_SHORTEST, _LONGEST = 30.0, 3600.0  # seconds until a release that did not load is tried again


class Follower:
    """Answers with the release that a store runs now.

    A call uses one model from its beginning to its end.  The release that answers is protected from
    collection.  If a new release does not load, the one before goes on answering.

    Attributes:
        digest: the digest of the release that answers; empty for the factory's.

    """

    def __init__(self, store: Path, factory: Path | None = None, every: float = 5.0) -> None:
        self._store = Reader.at(store)
        self._factory = factory
        self._seen = self._failed = -1
        self._again = self._pause = 0.0
        self._held = ExitStack()
        self._switching = Lock()
        self._stop = Event()
        self._model: Model | None = None
        self.digest = ""
        self.look()
        self._thread = Thread(target=self._follow, args=(every,), daemon=True)
        self._thread.start()

    @property
    def model(self) -> Model:
        """The current model."""
        assert self._model is not None  # noqa: S101 (the first look loaded one, or raised)
        return self._model

    def __call__(self, inputs: object, **options: Any) -> Any:
        """Answer as `Model` does."""
        return self.model(inputs, **options)

    def look(self) -> bool:
        """Switch if the store now runs another release; tell whether that happened.

        A release that does not load is tried again after a growing pause.

        Raises:
            EdgepackError: only the first time: there is nothing to load.

        """
        with self._switching:
            seq = self._store.state.seq
            if seq == self._seen or (seq == self._failed and time.monotonic() < self._again):
                return False
            try:
                switched = self._switch()
            except BaseException as exc:  # a tokenizer that panics does not raise an `Exception`
                if self._model is None or isinstance(exc, KeyboardInterrupt | SystemExit):
                    raise
                self._pause = min(2 * self._pause, _LONGEST) if seq == self._failed else _SHORTEST
                self._failed, self._again = seq, time.monotonic() + self._pause
                _log.warning("%s goes on: the new release does not load: %s", self.digest, exc)
                return False
            self._seen = seq
            return switched

    def _switch(self) -> bool:
        with ExitStack() as held:
            bundle = held.enter_context(self._store.reading())
            digest = bundle.digest if bundle else ""
            if self._model is not None and digest == self.digest:
                return False
            found = bundle or self._factory
            if found is None:
                raise InputError("the store has no release yet; name the factory bundle")
            self._model = load(found)
            self.digest = digest
            self._held, before = held.pop_all(), self._held
            before.close()
        _log.info("now running %s", digest or "the factory's release")
        return True

    def close(self) -> None:
        """Stop following; the model goes on answering."""
        self._stop.set()
        self._thread.join()
        self._held.close()

    def _follow(self, every: float) -> None:
        while not self._stop.wait(every):
            self.look()


def follow(store: str | Path, *, factory: str | Path | None = None, every: float = 5.0) -> Follower:
    """Load the release that a store runs, and switch when that changes.

    Args:
        store: its folder.
        factory: the bundle that the device was shipped with; it runs while the store has none.
        every: seconds between two checks of the store's record.

    Raises:
        InputError: the store has no release, and no factory bundle is named.
        EdgepackError: the release does not load.

    """
    return Follower(Path(store), Path(factory) if factory else None, every)
