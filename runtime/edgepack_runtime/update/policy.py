"""How a device takes updates, and whether one is meant for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgepack_runtime.update.trust import Offer


@dataclass(frozen=True)
class Policy:
    """How a device takes updates.

    device: its own name, by which a staged rollout finds it; without one it takes a release when
    all do.  cohort: the group it belongs to.
    attempts: tries of each file; pause: seconds before the second, doubled for each, with jitter.
    insist: take a release also where it is not rolled out yet, as who carries a file here does.
    """

    device: str = ""
    cohort: str = ""
    attempts: int = 8
    pause: float = 1.0
    insist: bool = False

    def takes(self, offer: Offer) -> bool:
        """Tell whether this device is among those that take a release: the same ones every time."""
        if offer.cohorts and self.cohort not in offer.cohorts:
            return False
        if not self.device:  # all nameless devices would be chosen at once
            return offer.percent >= 100
        place = hashlib.sha256(f"{self.device}/{offer.sha256}".encode()).digest()
        return int.from_bytes(place[:4], "big") % 100 < offer.percent
