"""A whole update, as the command line and a Python program run it.

    finish an interrupted trial → check → install → try out → forget what was measured → collect

The rules are in `trust`, the transport in `download` and `source`, the steps in `updater`.
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
    """The name its owner gave it."""
    release: int
    """Its counter."""
    digest: str
    """`sha256:…` of its manifest."""


def update(updater: Updater) -> Taken:
    """Take what a channel offers, prove it, and collect what is no longer needed.

    Raises:
        NothingToDoError: there is nothing for this device, or another process is updating it.
        SelfTestError: the release failed here; the previous one goes on running.
        TrustError: the channel cannot be trusted.
        LinkError: the links failed; the next attempt resumes where this one stopped.

    """
    with updater.store.alone():
        resume(updater)
        return _take(updater)


def take_file(updater: Updater, archive: Archive) -> Taken:
    """Take the release of a signed `.epk`, the one source of `updater`, as `update` does.

    A file may be brought again, in any order: a release that already runs is not taken twice.

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
                f"{exc}. Copy it again if it was cut short; if it was exported with --light, this "
                "device does not run the release before it: export without --light"
            ) from exc
        except LinkError as exc:  # there is nothing to wait for: the file is the only source
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
    forget(seen, store.releases())  # but not when an update is postponed: it comes again
    if why:
        raise SelfTestError(
            f"{updater.name} {offer.version} is not taken, the previous release goes on: {why}"
        )
    store.collect()
    return Taken(offer.version, offer.release, f"sha256:{offer.sha256}")
