"""Take a signed release from a channel: check, download, put on trial, prove, confirm.

    check → fits this device? → download what the store lacks → install → start → self-test
          → confirm, or reject and go on with what ran

It imports no engine until the self-test, so that a broken engine can always be replaced.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from edgepack_runtime.bundle import Bundle
from edgepack_runtime.device import probe
from edgepack_runtime.errors import (
    DeviceError,
    EdgepackError,
    LinkError,
    NothingToDoError,
    SelfTestError,
    TrustError,
)
from edgepack_runtime.fit import misfits
from edgepack_runtime.manifest import CHUNK, is_digest
from edgepack_runtime.store import MINIMUM, Store
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.trial import BrokenOffError, prove
from edgepack_runtime.update.delta import decode
from edgepack_runtime.update.source import MissingError, Source
from edgepack_runtime.update.trust import Offer, offered

_log = logging.getLogger(__name__)
_MOST_MANIFEST = 16 << 20
T = TypeVar("T")
Event = Callable[[str, Mapping[str, object]], None]
Prove = Callable[[Bundle], None]
Hook = Callable[[Bundle], None]


@dataclass(frozen=True)
class Policy:
    """How a device takes updates.

    device: its own name, by which a staged rollout finds it; cohort: the group it belongs to.
    attempts: tries of each file; pause: seconds before the second, doubled for each, with jitter.
    insist: take a release also where it is not rolled out yet, as who carries a file here does.
    """

    device: str = ""
    cohort: str = ""
    attempts: int = 8
    pause: float = 1.0
    insist: bool = False


@dataclass(frozen=True)
class Hooks:
    """What is called around the switch to a release that has passed its self-test.

    before: may raise an `EdgepackError` to put it off: the release is offered again.
    after: may raise one to go back: the release is not tried again.
    """

    before: Hook = lambda _bundle: None
    after: Hook | None = None


@dataclass
class _Came:
    """How far a download has come, in bytes: of the blobs that are done, of all missing ones."""

    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Updater:
    """Updates one line of releases, `NAME/BOARD`, of a store.

    sources: the channel and its mirrors, tried in turn; root: the root metadata that was shipped
    with the device; event: called with a word and its facts, for a progress display; prove: how a
    release on trial is tested, in this process if nothing else is said.
    """

    store: Store
    sources: Sequence[Source]
    root: bytes
    name: str
    policy: Policy = Policy()
    event: Event = lambda _word, _facts: None
    prove: Prove = prove
    hooks: Hooks = Hooks()
    _came: _Came = field(default_factory=_Came, init=False, repr=False, compare=False)

    def check(self) -> Offer:
        """Return the release that this device should take.

        Raises:
            NothingToDoError: it runs already, failed here, is held back, or is not for this device.
            TrustError: the channel's metadata is not to be trusted, or older than what was seen.
            LinkError: no source answers.

        """
        state = self.store.state
        remember = self.store.raise_floors
        offer = self._from_any(
            lambda source: offered(source, self.root, self.name, state, remember),
            also=TrustError,  # a mirror that is stale or behind a portal must not block the others
        )
        self.store.raise_floors({f"{MINIMUM}{self.name}": offer.minimum} if offer.minimum else {})
        if not self.policy.insist and not self._chosen(offer):
            offer = self._for_the_rest(offer, state.floors.get(self._counter, 0))
        digest = f"sha256:{offer.sha256}"
        if offer.release < state.floors.get(self._counter, 0):
            raise TrustError(
                f"the channel offers release {offer.release}, and "
                f"{state.floors[self._counter]} ran here before"
            )
        self.store.check_wanted(digest)
        return offer

    def install(self, offer: Offer) -> Bundle:
        """Download what the store lacks and put the release on trial; return it.

        The release that runs is only repaired, where the disk damaged it: there is no trial.

        Raises:
            DeviceError: it does not fit this device; the message lists why.
            TrustError: it is not what was signed, or for another board.
            LinkError: the links failed; what came is kept, and the next try goes on.

        """
        self._receive(offer.sha256, offer.size, ())
        bundle = self._described(offer)
        lacking = misfits(bundle.manifest, probe())
        if lacking:
            raise DeviceError(f"{offer.version} does not fit this device: {'; '.join(lacking)}")
        missing = self.store.blobs.missing(bundle)
        self.store.make_room(sum(missing.values()), bundle.blobs())
        chunks = {entry.sha256: entry.chunks for entry in bundle.manifest.files}
        self._came.total, self._came.done = sum(missing.values()), 0
        for sha256, size in missing.items():
            parts = chunks.get(sha256, ())
            if not self._from_delta(offer, sha256, size, parts):
                self._receive(sha256, size, parts)
            self._came.done += size
            self.event("download", {"done": self._came.done, "total": self._came.total})
        total, self._came.total = self._came.total, 0
        if bundle.digest == self.store.state.active:
            self.event("repaired", {"version": offer.version, "bytes": total})
            return bundle
        self.store.install(bundle)
        self.event("installed", {"version": offer.version, "bytes": total})
        return bundle

    def try_out(self) -> str:
        """Start what is on trial and prove it: confirm it, or go back and say why.

        A proof that breaks off (a crash, a hang, a power cut) uses up one of the trial's attempts
        and is tried again.  What lies with the device and not with the release (memory, a broken
        engine) is no verdict on the release: it is given up for now and may come again.

        Raises:
            DeviceError: the device cannot run it now.
            NothingToDoError: the hook before the switch says not now.

        """
        why = "the release on trial is not whole, or its start could not be counted"
        while (started := self.store.start()).on_trial and started.bundle is not None:
            try:
                self.prove(started.bundle)
            except BrokenOffError as exc:
                why = str(exc)
                _log.warning("%s", why)
            except (SelfTestError, TrustError) as exc:
                self.store.reject()
                return str(exc)
            except DeviceError:
                self.store.abandon()
                raise
            else:
                return self._switch(started.bundle)
        return why

    def _switch(self, bundle: Bundle) -> str:
        """Make the proven release the active one, between the two hooks.

        Until the hook after the switch has passed, the release stays on trial though it is active:
        a device that dies in it comes back here, as often as there are attempts.
        """
        state = self.store.state
        if state.active != state.trial:
            try:
                self.hooks.before(bundle)
            except EdgepackError:
                self.store.abandon()
                raise
            manifest = bundle.manifest
            floor = {f"release:{manifest.name}/{manifest.target}": manifest.release}
            self.store.confirm(floor, settled=self.hooks.after is None)
        if self.hooks.after is not None:
            try:
                self.hooks.after(bundle)
            except EdgepackError as exc:
                self.store.reject()
                return str(exc)
        if self.store.state.trial:
            self.store.settle()
        self.event("confirmed", {"digest": bundle.digest})
        return ""

    @property
    def _counter(self) -> str:
        return f"release:{self.name}"

    def _described(self, offer: Offer) -> Bundle:
        """Fetch the model config that the OCI manifest names, and open the release."""
        import json

        content = self.store.storage.read(f"{BLOBS}/{offer.sha256}")
        try:
            config = json.loads(content)["config"]
            sha256, size = str(config["digest"]).removeprefix("sha256:"), int(config["size"])
        except (ValueError, KeyError, TypeError) as exc:
            raise TrustError(f"release {offer.version} is malformed: {exc}") from exc
        if not 0 <= size <= _MOST_MANIFEST or not is_digest(sha256):
            raise TrustError(f"release {offer.version} names an unusable config")
        self._receive(sha256, size, ())
        bundle = self.store.blobs.bundle(f"sha256:{offer.sha256}")
        manifest = bundle.manifest
        if f"{manifest.name}/{manifest.target}" != self.name:
            raise TrustError(f"{self.name} holds {manifest.name} for {manifest.target}")
        if manifest.release != offer.release:
            raise TrustError(f"release {manifest.release} was signed as {offer.release}")
        return bundle

    def _receive(
        self, sha256: str, size: int, chunks: Sequence[str], attempts: int | None = None
    ) -> None:
        """Take one blob, from any source, in as many tries as the policy allows."""
        if self.store.storage.size(f"{BLOBS}/{sha256}") == size:
            return
        self._from_any(
            lambda source: self.store.blobs.receive(
                sha256, size, chunks, partial(self._fetch, source, sha256)
            ),
            attempts=attempts,
        )

    def _fetch(self, source: Source, sha256: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a blob, and tell of every chunk of it that came."""
        come = start
        for piece in source.fetch(f"{BLOBS}/{sha256}", start):
            before, come = come, come + len(piece)
            if self._came.total and before // CHUNK < come // CHUNK:
                done = min(self._came.done + come, self._came.total)
                self.event("download", {"done": done, "total": self._came.total})
            yield piece

    def _from_delta(self, offer: Offer, sha256: str, size: int, chunks: Sequence[str]) -> bool:
        """Make a blob of one that the store has, if a delta is offered; tell whether it was."""
        storage = self.store.storage
        for delta in offer.deltas:
            base = f"{BLOBS}/{delta.base}"
            usable = delta.blob == sha256 and is_digest(delta.base) and is_digest(delta.sha256)
            if not usable or storage.size(base) < 0:
                continue
            old = storage.map(base)
            if hashlib.sha256(old).hexdigest() != delta.base:
                continue  # damaged: the whole blob is there as well
            try:
                self._receive(delta.sha256, delta.size, (), attempts=1)
                fetch = partial(_decoded, storage.map(f"{BLOBS}/{delta.sha256}"), old, size)
                self.store.blobs.receive(sha256, size, chunks, fetch)
            except MissingError:
                continue  # a file that carries whole blobs has no use for deltas
            except (LinkError, TrustError) as exc:
                _log.warning("a delta is of no use, the whole blob is taken: %s", exc)
                continue
            return True
        return False

    def _from_any(
        self,
        ask: Callable[[Source], T],
        *,
        attempts: int | None = None,
        also: type[EdgepackError] = LinkError,
    ) -> T:
        """Ask the sources in turn, with pauses that grow; raise what the last one said.

        An error of the kind `also` sends to the next source, and is final when all were asked.
        """
        if not self.sources:
            raise LinkError("there is no source")
        pause, tries, failure = self.policy.pause, attempts or self.policy.attempts, None
        for attempt in range(max(1, tries)):
            source = self.sources[attempt % len(self.sources)]
            try:
                return ask(source)
            except (LinkError, also) as exc:
                failure = exc
                _log.info("attempt %d failed: %s", attempt + 1, exc)
            if (attempt + 1) % len(self.sources) == 0 and attempt + 1 < tries:
                if not isinstance(failure, LinkError):
                    break
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (a fleet should not ask at once)
                pause = min(2 * pause, 300.0)
        assert failure is not None  # noqa: S101 (there was an attempt)
        raise failure

    def _for_the_rest(self, offer: Offer, floor: int) -> Offer:
        """Return the release that goes with a staged one, unless this device has a newer one."""
        if offer.before is None or offer.before.release < floor:
            raise NothingToDoError(f"release {offer.version} is not rolled out to this device yet")
        return offer.before

    def _chosen(self, offer: Offer) -> bool:
        """Tell whether this device is among those that take a release: the same ones every time."""
        if offer.cohorts and self.policy.cohort not in offer.cohorts:
            return False
        place = hashlib.sha256(f"{self.policy.device}/{offer.sha256}".encode()).digest()
        return int.from_bytes(place[:4], "big") % 100 < offer.percent


def _decoded(packed: memoryview, base: memoryview, size: int, start: int) -> Iterator[bytes]:
    """Yield what a delta makes, from byte `start` on."""
    from io import BytesIO

    skip = start
    for piece in decode(BytesIO(packed).read, base, size):
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def read_root(path: Path) -> bytes:
    """Read the root metadata that a device trusts from the start.

    Raises:
        TrustError: there is none, or it is no root metadata.

    """
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        content = path.read_bytes()
        Metadata[Root].from_bytes(content)
    except RepositoryError as exc:
        raise TrustError(f"{path} is no root metadata: {exc}") from exc
    except OSError as exc:
        raise TrustError(
            f"no root metadata at {path}: copy metadata/1.root.json of the channel there, by a "
            "way that you trust"
        ) from exc
    return content
