"""Take a signed release from a channel: check, download, put on trial, prove, confirm.

    check → fits this device? → download what the store lacks → install → start → self-test
          → confirm, or reject and go on with the previous release

No engine is imported before the self-test, so that a broken engine can always be replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from edgepack_runtime.bundle import limits
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.names import is_digest
from edgepack_runtime.device.facts import probe
from edgepack_runtime.errors import (
    DeviceError,
    NothingToDoError,
    TrustError,
)
from edgepack_runtime.fit import misfits
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.record import MINIMUM, RELEASE
from edgepack_runtime.store.room import make_room
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.download import Download, Event
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Source
from edgepack_runtime.update.takeover import Hooks, Prove, Takeover
from edgepack_runtime.update.trial import prove
from edgepack_runtime.update.trust import Offer, offered

_log = logging.getLogger(__name__)
Step = TypeVar("Step", bound=Callable[..., Any])


def _alone(step: Step) -> Step:
    """Make a step of an updater the only writer of its store."""

    @wraps(step)
    def taken(self: Updater, *args: Any, **options: Any) -> Any:
        with self.store.alone():
            return step(self, *args, **options)

    return cast("Step", taken)


@dataclass(frozen=True)
class Updater:
    """Updates one line of releases, `NAME/BOARD`, of a store.

    Each step raises a `NothingToDoError` while another process or thread writes to the store.
    Wrap several steps in `with updater.store.alone():` to keep other writers out between them.
    """

    store: Store
    """The store to update."""
    sources: Sequence[Source]
    """The channel and its mirrors, tried in turn."""
    root: bytes
    """The root metadata that was shipped with the device."""
    name: str
    """The line of releases, `NAME/BOARD`."""
    policy: Policy = Policy()
    """How this device takes updates."""
    event: Event = lambda _word, _facts: None
    """Called with a word and its facts, for a progress display."""
    prove: Prove = prove
    """How a release on trial is tested; by default, in this process."""
    hooks: Hooks = Hooks()
    """The functions called around the switch."""

    @_alone
    def check(self) -> Offer:
        """Return the release that this device should take.

        Raises:
            NothingToDoError: it runs already, failed here, or is not for this device yet, or the
                store is pinned.
            InputError: the channel has nothing of this name.
            TrustError: the channel's metadata cannot be trusted, or is older than what was seen.
            LinkError: no source answers.

        """
        state = self.store.state
        remember = self.store.raise_floors
        offer = self._download.ask(
            lambda source: offered(source, self.root, self.name, state, remember),
            also=TrustError,  # a mirror that is stale or behind a portal must not block the others
        )
        state = self.store.state
        least_back = {state.by_keys(f"{MINIMUM}{self.name}"): offer.minimum}
        state = self.store.raise_floors(least_back)
        if not self.policy.insist and not self.policy.takes(offer):
            offer = self._for_the_rest(offer, state.floor(f"{RELEASE}{self.name}"))
        self._check_not_older(offer)
        self.store.check_wanted(f"sha256:{offer.sha256}")
        return offer

    def _check_not_older(self, offer: Offer) -> None:
        if offer.release < (least := self.store.state.floor(f"{RELEASE}{self.name}")):
            raise TrustError(
                f"the channel offers release {offer.release}, but {least} ran here before"
            )

    @_alone
    def install(self, offer: Offer) -> Bundle:
        """Download what the store lacks and put the release on trial; return it.

        The release that already runs is only repaired, where the disk damaged it; it is not put on
        trial.

        Raises:
            DeviceError: it does not fit this device; the message says why.
            TrustError: it is not what was signed, or it is for another board.
            LinkError: the links failed; the next attempt resumes with what arrived.

        """
        self._check_not_older(offer)  # another updater may have been here since
        self._download.blob(offer.sha256, offer.size)
        bundle = self._described(offer)
        lacking = misfits(bundle.manifest, probe())
        if lacking:
            raise DeviceError(f"{offer.version} does not fit this device: {'; '.join(lacking)}")
        missing = self.store.blobs.missing(bundle)
        make_room(self.store, sum(missing.values()), bundle.blobs())
        chunks = {entry.sha256: entry.chunks for entry in bundle.manifest.files}
        self._download.blobs(missing, chunks, offer.deltas)
        total = sum(missing.values())
        if bundle.digest == self.store.state.active:
            self.store.storage.sync_folder(BLOBS)
            self.event("repaired", {"version": offer.version, "bytes": total})
            return bundle
        self.store.install(bundle)
        self.event("installed", {"version": offer.version, "bytes": total})
        return bundle

    @_alone
    def try_out(self) -> str:
        """Start the release on trial and prove it: confirm it, or go back and say why.

        A proof that does not finish (a crash, a hang, a power cut) uses up one of the trial's
        attempts and is tried again.  A fault of the device (lack of memory, a broken engine) is not
        a verdict on the release: the release is given up for now and may come again.

        Raises:
            DeviceError: the device cannot run it now, or has nothing whole to go back to.
            NothingToDoError: none is on trial, or the hook before the switch postponed it.

        """
        return Takeover(self.store, self.prove, self.hooks, self.event).run()

    @property
    def _download(self) -> Download:
        policy = self.policy
        return Download(self.store, self.sources, policy.attempts, policy.pause, self.event)

    def _described(self, offer: Offer) -> Bundle:
        """Fetch the model config that the OCI manifest names, and open the release."""
        import json

        content = self.store.storage.read(f"{BLOBS}/{offer.sha256}")
        try:
            config = json.loads(content)["config"]
            sha256, size = str(config["digest"]).removeprefix("sha256:"), int(config["size"])
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as exc:
            raise TrustError(f"release {offer.version} is malformed: {exc}") from exc
        if not 0 <= size <= limits.JSON_BYTES or not is_digest(sha256):
            raise TrustError(f"release {offer.version} names an unusable config")
        self._download.blob(sha256, size)
        bundle = self.store.blobs.bundle(f"sha256:{offer.sha256}")
        manifest = bundle.manifest
        if f"{manifest.name}/{manifest.target}" != self.name:
            raise TrustError(f"{self.name} holds {manifest.name} for {manifest.target}")
        if manifest.release != offer.release:
            raise TrustError(f"release {manifest.release} was signed as {offer.release}")
        return bundle

    def _for_the_rest(self, offer: Offer, floor: int) -> Offer:
        """Return the release for the remaining devices, unless this device had a newer one."""
        if offer.before is None or offer.before.release < floor:
            nameless = "" if self.policy.device else ", which has no name (--device)"
            raise NothingToDoError(
                f"release {offer.version} is not rolled out to this device yet{nameless}"
            )
        return offer.before


def read_root(path: Path) -> bytes:
    """Read the root metadata that a device trusts from the start.

    Raises:
        TrustError: there is none, or it is not root metadata.

    """
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        content = path.read_bytes()
        Metadata[Root].from_bytes(content)
    except RepositoryError as exc:
        raise TrustError(f"{path} is not root metadata: {exc}") from exc
    except OSError as exc:
        raise TrustError(
            f"no root metadata at {path}: copy metadata/1.root.json of the channel there, by a "
            "way that you trust"
        ) from exc
    return content
