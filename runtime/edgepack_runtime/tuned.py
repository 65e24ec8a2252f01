"""Measured latencies of a bundle's variants on this machine, and where they are kept.

A record belongs to one bundle digest and one machine fingerprint; anything else ignores
it.  Measurements stay out of the bundle, so that a bundle is the same bytes every time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import exp, log
from pathlib import Path

from edgepack_runtime.device import Device
from edgepack_runtime.paths import cache_folder, write_whole

Latencies = Mapping[str, Mapping[str, float]]


def load(digest: str, device: Device) -> dict[str, dict[str, float]]:
    """Return {variant: {"tokens×rows": milliseconds}}; empty if nothing was measured here."""
    try:
        record = json.loads(_path(digest).read_text())
        if record["device"] != device.fingerprint:
            return {}
        return {
            str(name): {str(cell): float(ms) for cell, ms in cells.items() if float(ms) > 0}
            for name, cells in record["latency_ms"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def save(digest: str, device: Device, latencies: Latencies) -> Path:
    """Keep a measurement for later loads; written whole or not at all."""
    path = _path(digest)
    record = {"device": device.fingerprint, "latency_ms": latencies}
    write_whole(path, json.dumps(record, indent=1).encode())
    return path


def score(name: str, latencies: Latencies) -> float:
    """Compare a variant with the fastest, cell by cell: 1.0 is fastest everywhere.

    The geometric mean of the ratios, so that no single length decides alone; infinite for
    a variant that was not measured.
    """
    mine = latencies.get(name)
    if not mine:
        return float("inf")
    ratios = [
        ms / min(row.get(cell, ms) for row in latencies.values()) for cell, ms in mine.items()
    ]
    return exp(sum(log(ratio) for ratio in ratios) / len(ratios))


def _path(digest: str) -> Path:
    return cache_folder() / "tuned" / f"{digest.removeprefix('sha256:')}.json"
