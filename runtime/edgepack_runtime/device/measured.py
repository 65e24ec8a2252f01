"""What was measured for a bundle on this machine, and where it is stored.

A record belongs to one bundle digest and one identity: machine, CPU flags, GPU driver, engine
versions.  For any other, the record is ignored.  Measurements are not stored in the bundle, so that
a bundle always has the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import exp, log
from pathlib import Path

from edgepack_runtime.device.facts import Device
from edgepack_runtime.device.identity import identity
from edgepack_runtime.paths import cache_folder, write_whole

Latencies = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Record:
    """Measurements by variant; empty if there are none."""

    latency_ms: Latencies = field(default_factory=dict)
    """{variant: {"tokens×rows": median}}, each at its best number of threads."""
    threads: Mapping[str, int] = field(default_factory=dict)
    """{variant: its best number of threads}."""
    details: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """{variant: {figure: value}}: 95th percentiles, memory, energy, agreement."""


def load(digest: str, device: Device) -> Record:
    """Return what was measured for a bundle here; an empty record if nothing was."""
    try:
        kept = json.loads(_path(digest).read_text())
        if kept["identity"] != identity(device):
            return Record()
        return Record(
            {
                str(name): {str(cell): float(ms) for cell, ms in cells.items() if float(ms) > 0}
                for name, cells in kept["latency_ms"].items()
            },
            {str(name): int(count) for name, count in kept["threads"].items() if int(count) > 0},
            {
                str(name): {str(figure): float(value) for figure, value in row.items()}
                for name, row in kept["details"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record()


def save(digest: str, device: Device, record: Record) -> Path:
    """Store a measurement for later loads; it is written whole or not at all."""
    path = _path(digest)
    value = {"identity": identity(device), **asdict(record)}
    write_whole(path, json.dumps(value, indent=1).encode())
    return path


def forget(digest: str) -> None:
    """Delete what was measured for a bundle."""
    _path(digest).unlink(missing_ok=True)


def score(name: str, latencies: Latencies) -> float:
    """Compare a variant with the fastest, cell by cell: 1.0 is fastest everywhere.

    This is the geometric mean of the ratios, so that no single length decides alone.  It is
    infinite for a variant that was not measured.
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
