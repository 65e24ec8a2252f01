"""Embeddings: how similar pairs of texts are, or what a text's nearest neighbour is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack.tasks._scores import correlations, is_number
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "feature-extraction"
AUTO_CLASS = "AutoModel"
ARCHITECTURES: tuple[str, ...] = ("ForMaskedLM", "ForPreTraining", "Model")
HEAD = ""
ADAPTER = "FEATURE_EXTRACTION"
READS = "text"
DECODES = False
PAIRS = False
LEARNS = True
MARK = ""
PACKAGES: tuple[str, ...] = ()


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:  # noqa: ARG001 (each text runs alone)
    """Score similarities of pairs, or how often a text's nearest neighbour has its label."""
    if all(example.pair and is_number(example.label) for example in examples):
        left, right = (embed(model, texts) for texts in zip(*_pairs(examples), strict=True))
        return correlations((left * right).sum(axis=1).tolist(), examples)
    if any(example.label is None for example in examples):
        raise InputError(
            "embeddings are evaluated on pairs with a number (how similar the texts are), or "
            "on texts with a label; some rows have neither"
        )
    vectors = embed(model, [example.text for example in examples])
    likeness = vectors @ vectors.T
    for i in range(len(examples)):
        likeness[i, i] = -2.0
    nearest = likeness.argmax(axis=1)
    labels = [example.label for example in examples]
    hits = sum(labels[i] == labels[int(j)] for i, j in enumerate(nearest))
    return Quality("nearest_accuracy", {"nearest_accuracy": hits / len(examples)}, len(examples))


def _pairs(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(example.text, str(example.pair)) for example in examples]


def embed(model: Model, texts: Sequence[str]) -> Any:
    """Return pooled unit vectors [texts, width]."""
    import numpy as np

    vectors = np.stack(model.outputs(texts))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
