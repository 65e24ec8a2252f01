"""How a release on trial takes over: it is proven, then made active between two hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import (
    DeviceError,
    EdgepackError,
    NothingToDoError,
    SelfTestError,
    TrustError,
)
from edgepack_runtime.store.record import RELEASE
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.download import Event
from edgepack_runtime.update.trial import BrokenOffError

_log = logging.getLogger(__name__)
Prove = Callable[[Bundle], None]
Hook = Callable[[Bundle], None]


@dataclass(frozen=True)
class Hooks:
    """The functions called around the switch to a release that has passed its self-test."""

    before: Hook = lambda _bundle: None
    """May raise an `EdgepackError` to postpone the switch: the release is offered again."""
    after: Hook | None = None
    """May raise an `EdgepackError` to go back: the release is not tried again."""


@dataclass(frozen=True)
class Takeover:
    """The trial of a release; the steps are those of `Updater.try_out`."""

    store: Store
    """Has a release on trial."""
    prove: Prove
    """How it is tested."""
    hooks: Hooks
    """What is called around the switch."""
    event: Event
    """Called with a word and its facts."""

    def run(self) -> str:
        """Confirm the release, or go back and say why."""
        if not self.store.state.trial:
            raise NothingToDoError("no release is on trial")
        why = "the release on trial is not whole, or its start could not be counted"
        while (started := self.store.start()).on_trial and started.bundle is not None:
            try:
                self.prove(started.bundle)
            except BrokenOffError as exc:
                why = str(exc)
                _log.warning("%s", why)
            except (SelfTestError, TrustError) as exc:
                whole = self.store.blobs.whole(started.bundle.digest) is not None
                self.store.reject() if whole else self.store.abandon()
                return str(exc)
            except DeviceError:
                self.store.abandon()
                raise
            else:
                return self._switch(started.bundle)
        return why

    def _switch(self, bundle: Bundle) -> str:
        """Make the proven release the active one, between the two hooks.

        Until the hook after the switch has passed, the release stays on trial although it is
        active.  A device that dies in that hook comes back here while attempts are left.
        """
        state = self.store.state
        if state.active != state.trial:
            try:
                self.hooks.before(bundle)
            except EdgepackError:
                self.store.abandon()
                raise
            manifest = bundle.manifest
            counter = state.by_keys(f"{RELEASE}{manifest.name}/{manifest.target}")
            floor = {counter: manifest.release}
            self.store.confirm(floor, settled=self.hooks.after is None)
        if self.hooks.after is not None:
            try:
                self.hooks.after(bundle)
            except EdgepackError as exc:
                if self.store.reject().active == bundle.digest:
                    raise DeviceError(
                        f"{exc}; the release before is damaged, so {bundle.manifest.version} stays"
                    ) from exc
                return str(exc)
        if self.store.state.trial:
            self.store.settle()
        self.event("confirmed", {"digest": bundle.digest})
        return ""
