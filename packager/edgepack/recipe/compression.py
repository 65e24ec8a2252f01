"""The steps that make a model smaller, each with the settings of its method."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack.compress import distill, finetune, prune, vocabulary


@dataclass(frozen=True)
class Compression:
    """The steps between the model as it came and its export; None leaves a step out.

    augment: new texts for each text of the data, for the student to learn from; None for as many
        as it needs.
    size: one of `presets.SIZES`, from which the steps follow that are None; empty for none.
    """

    finetune: finetune.Settings | None = None
    vocabulary: vocabulary.Settings | None = None
    prune: prune.Settings | None = None
    distill: distill.Settings | None = None
    augment: int | None = None
    size: str = ""
