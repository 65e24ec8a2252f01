"""Summaries; named by the recipe, for no architecture tells."""

from __future__ import annotations

from edgepack.tasks._pairs import AUTO_CLASS, OPTIMUM, evaluate

__all__ = [
    "ADAPTER",
    "ARCHITECTURES",
    "AUTO_CLASS",
    "DECODES",
    "HEAD",
    "MARK",
    "OPTIMUM",
    "PACKAGES",
    "PAIRS",
    "evaluate",
]
ARCHITECTURES: tuple[str, ...] = ()
HEAD = ""
ADAPTER = "SEQ_2_SEQ_LM"
READS = "text"
DECODES = True
PAIRS = True
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = ()
