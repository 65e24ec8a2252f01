"""Similarity of sentences: embeddings, compared; measured as those are."""

from __future__ import annotations

from edgepack.tasks.feature_extraction import evaluate

__all__ = ["evaluate"]

OPTIMUM = "feature-extraction"
AUTO_CLASS = "AutoModel"
ARCHITECTURES: tuple[str, ...] = ()
HEAD = ""
ADAPTER = ""
DECODES = False
MARK = "modules.json"
