"""Similarity of sentences: it compares embeddings, and is measured as they are."""

from __future__ import annotations

from edgepack.tasks.feature_extraction import evaluate

__all__ = ["evaluate"]

OPTIMUM = "feature-extraction"
AUTO_CLASS = "AutoModel"
ARCHITECTURES: tuple[str, ...] = ()
HEAD = ""
ADAPTER = ""
READS = "text"
DECODES = False
PAIRS = False
LEARNS = True
MARK = "modules.json"
PACKAGES: tuple[str, ...] = ()
