"""The steps that make a model smaller, each with the settings of its method."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack.compress import distill, finetune, prune, vocabulary


@dataclass(frozen=True)
class Compression:
    """The steps between the original model and its export; None leaves a step out."""

    finetune: finetune.Settings | None = None
    """How to fine-tune the model."""
    vocabulary: vocabulary.Settings | None = None
    """How to trim the vocabulary."""
    prune: prune.Settings | None = None
    """How to prune the model."""
    distill: distill.Settings | None = None
    """How to distil it."""
    augment: int | None = None
    """New texts for each text of the data, for the student; None for as many as it needs."""
    size: str = ""
    """One of `presets.SIZES`, which decides the steps that are None; empty for no size."""
