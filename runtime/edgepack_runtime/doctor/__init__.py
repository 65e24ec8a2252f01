"""What is wrong with a device, in plain words, and what to do about it.

A rule is a function of what `facts` found.  It checks one thing and returns (level, what, remedy)
or None.  The rules rest on the wheels' own metadata and binaries, NVIDIA's release notes, and the
issues named next to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgepack_runtime.doctor import accelerators, software
from edgepack_runtime.doctor.facts import System

_LEVELS = ("fault", "limit", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    rule: str
    """Its name for programs."""
    level: str
    """`fault`: nothing runs until it is fixed; `limit`: some variants cannot run, or run slowly;
    `note`."""
    what: str
    """What is wrong."""
    remedy: str
    """What to do about it."""


def findings(system: System) -> list[Finding]:
    """Return what is wrong, faults first."""
    found = [
        Finding(rule.__name__.lstrip("_").replace("_", "-"), *said)
        for rule in (*software.RULES, *accelerators.RULES)
        if (said := rule(system))
    ]
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))
