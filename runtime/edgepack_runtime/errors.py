"""The errors of both distributions, grouped by what the caller does next.

Every message says what is wrong, where, and the remedy.  The command lines return `exit_code`; the
table of exit codes is part of the public contract (docs/exit-codes.md).
"""

from __future__ import annotations


class EdgepackError(Exception):
    """The base class of every error that edgepack raises on purpose."""

    exit_code = 1


class InputError(EdgepackError):
    """What the caller passed in is wrong: a recipe, a path, a text, an option."""

    exit_code = 2


class LinkError(EdgepackError):
    """A download failed.  What was checked so far is not lost; another attempt resumes there."""


class BudgetError(EdgepackError):
    """The build was refused: it exceeds a limit on quality, size or latency."""

    exit_code = 3


class DeviceError(EdgepackError):
    """The bundle is sound but this device cannot run it."""

    exit_code = 4


class TrustError(EdgepackError):
    """The bundle is not what it says it is: truncated, altered or malformed."""

    exit_code = 5


class SelfTestError(EdgepackError):
    """The bundle runs, but its outputs differ from the recorded golden outputs."""

    exit_code = 6


class NothingToDoError(EdgepackError):
    """There is nothing to do."""

    exit_code = 7


class HostError(EdgepackError):
    """The host lacks what the work needs: a package, memory, disk; the input may be right."""

    exit_code = 8
