"""`compress = "balanced"`: the steps of a compression, for people who do not know layer counts.

The steps follow from the model's own `config.json`.  A table in the recipe overrides its preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack.compress import distill, layers, prune, vocabulary
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack.data.rows import Columns
    from edgepack.recipe.compression import Compression

_MULTIPLE = 64  # feed-forward neurons; kernels run well with multiples of this


@dataclass(frozen=True)
class _Size:
    """The shares that remain in the model."""

    heads: float
    """The share of attention heads."""
    feed_forward: float
    """The share of feed-forward neurons."""
    general: float
    """The share of the vocabulary's common tokens."""


_SHARES = {
    "small": _Size(1 / 2, 1 / 3, 1 / 3),
    "balanced": _Size(1, 1 / 2, 2 / 5),
    "accurate": _Size(1, 1, 1),
}
SIZES = tuple(_SHARES)


def expand(
    steps: Compression, config: Mapping[str, Any], columns: Columns, *, writes: bool = False
) -> Compression:
    """Return the steps of a size; tables in the recipe override them.

    Args:
        steps: the steps in the recipe.
        config: the model's `config.json`.
        columns: the columns of the data.
        writes: whether it is a language model, which keeps its heads and its whole vocabulary, and
            whose student learns token vectors too, as they are its head.

    Raises:
        InputError: the layers of such a model cannot be cut.

    """
    if not steps.size:
        return steps
    kind = str(config.get("model_type", ""))
    if kind not in layers.FAMILIES:
        raise InputError(f"compress: {layers.cannot_cut(kind)}. Leave it out")
    share, there = _SHARES[steps.size], layers.sizes_of(config)
    cut = prune.Settings(
        "",
        layers=_depth(there["layers"], steps.size),
        feed_forward=_width(there["feed_forward"], share.feed_forward),
        heads=0 if writes or config.get("pruned_heads") else _heads(there["heads"], share.heads),
        columns=columns,
    )
    trimmed = vocabulary.Settings("", general=share.general, columns=columns)
    trims = share.general < 1 and not writes
    return replace(
        steps,
        vocabulary=steps.vocabulary or (trimmed if trims else None),
        prune=steps.prune or cut,
        distill=steps.distill
        or distill.Settings("", freeze_embeddings=not writes, columns=columns),
    )


def _depth(depth: int, size: str) -> int:
    """Return how many layers remain, at least one; small models need depth more than width."""
    half, third = -(-depth // 2), -(-depth // 3)
    return {"small": min(third + 1, half), "balanced": half, "accurate": min(depth, 2 * third)}[
        size
    ]


def _heads(count: int, share: float) -> int:
    """Return how many heads remain in each layer; 0 for all."""
    return 0 if share == 1 else max(1, round(count * share))


def _width(width: int, share: float) -> int:
    """Return how many feed-forward neurons remain, if possible a multiple of 64; 0 for all."""
    wanted = round(width * share / _MULTIPLE) * _MULTIPLE or max(1, round(width * share))
    return 0 if share == 1 else min(width, wanted)
