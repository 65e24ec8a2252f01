"""How a device takes updates, and whether one is meant for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgepack_runtime.update.trust import Offer


@dataclass(frozen=True)
class Policy:
    """How a device takes updates."""

    device: str = ""
    """The device's own name, which a staged rollout goes by; without one, the device waits until
    a release is for all devices."""
    cohort: str = ""
    """The group that the device belongs to."""
    attempts: int = 8
    """Attempts for each file."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled for each further one, with jitter."""
    insist: bool = False
    """Take a release even before it is rolled out to this device, as when someone brings the file
    by hand."""

    def takes(self, offer: Offer) -> bool:
        """Tell whether this device is among those that take a release; the answer never changes."""
        if offer.cohorts and self.cohort not in offer.cohorts:
            return False
        if not self.device:  # all nameless devices would be chosen at once
            return offer.percent >= 100
        place = hashlib.sha256(f"{self.device}/{offer.sha256}".encode()).digest()
        return int.from_bytes(place[:4], "big") % 100 < offer.percent
