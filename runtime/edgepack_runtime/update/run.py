"""A whole update, as the command line and a Python program run it.

    finish an interrupted trial → check → install → try out → forget what was measured → collect

The rules stand in `trust`, the transport in `download` and `source`, the steps in `updater`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_runtime.errors import InputError, LinkError, SelfTestError, TrustError
from edgepack_runtime.model.prepare import forget
from edgepack_runtime.update.source import MissingError, digest_of

if TYPE_CHECKING:
    from edgepack_runtime.update.source import Archive
    from edgepack_runtime.update.updater import Updater

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """The release that runs after an update."""

    version: str
    """As its owner calls it."""
    release: int
    """Its counter."""
    digest: str
    """`sha256:…` of its manifest."""


def update(updater: Updater) -> Taken:
    """Take what a channel offers, prove it, and collect what is not needed any more.

    Raises:
        NothingToDoError: there is nothing for this device, or another process updates it.
        SelfTestError: the release failed here; what ran before goes on.
        TrustError: the channel is not to be trusted.
        LinkError: the links failed; the next try goes on where this one stopped.

    """
    with updater.store.alone():
        resume(updater)
        return _take(updater)


def take_file(updater: Updater, archive: Archive) -> Taken:
    """Take the release of a signed `.epk`, the one source of `updater`, as `update` does.

    A carrier that comes again, in whatever order, finds it done.

    Raises:
        InputError: the file lacks what this device needs.
        TrustError: it is damaged, or was altered.

    """
    store = updater.store
    with store.alone():
        resume(updater)
        running = store.running()
        if running and running.digest == store.state.active == digest_of(archive):
            return Taken(running.manifest.version, running.manifest.release, running.digest)
        try:
            return _take(updater)
        except MissingError as exc:
            raise InputError(
                f"{exc}. Copy it again if it was cut short; if it is a light one, this device "
                "does not run the release before: export without --light"
            ) from exc
        except LinkError as exc:  # nothing to wait for: the file is all there is
            raise TrustError(f"{archive.path} is damaged or was altered: {exc}") from exc


def resume(updater: Updater) -> None:
    """Finish a trial that a power cut or a crash interrupted, if there is one."""
    if updater.store.state.trial:
        why = updater.try_out()
        _log.warning("an interrupted trial: %s", why or "confirmed")


def _take(updater: Updater) -> Taken:
    offer, store = updater.check(), updater.store
    seen = store.releases()
    seen.append(updater.install(offer))
    why = updater.try_out() if store.state.trial else ""
    forget(seen, store.releases())  # but not when it is put off: it comes again
    if why:
        raise SelfTestError(f"{updater.name} {offer.version} is not taken, what ran goes on: {why}")
    store.collect()
    return Taken(offer.version, offer.release, f"sha256:{offer.sha256}")
