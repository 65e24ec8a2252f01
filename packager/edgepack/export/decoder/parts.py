"""What every decoder is made of, whatever its family calls it.  All arrays are float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Product:
    """A matrix product."""

    weight: Any
    """[out, in]."""
    bias: Any = None
    """[out], or None."""


@dataclass(frozen=True)
class Norm:
    """A normalization of the last axis."""

    weight: Any
    """[width]."""
    bias: Any
    """[width] of LayerNorm; None for a root mean square norm, which has none."""
    epsilon: float
    """Added to the mean square."""


@dataclass(frozen=True)
class Rotary:
    """Positions that turn pairs of numbers of each head."""

    frequencies: Any
    """Radians for each position [turned ÷ 2]; the numbers of a head after `turned` stay."""
    scale: float = 1.0
    """Of cosines and sines."""


@dataclass(frozen=True)
class Attention:
    """The attention of one layer."""

    queries: Product
    keys: Product
    values: Product
    output: Product
    scale: float
    """Of the scores."""
    query_norm: Norm | None = None
    """Of each head, or of all heads together if it is as wide as they are."""
    key_norm: Norm | None = None
    rotary: str = ""
    """Which of the decoder's rotary positions; empty for none."""
    window: int = 0
    """Positions that a token sees, itself included; 0 for all."""
    softcap: float = 0.0
    """Bounds the scores; 0 for none."""


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of one layer."""

    up: Product
    down: Product
    activation: str
    """As a transformers config names it."""
    gate: Product | None = None
    """What the activation is applied to, if not to `up`."""


@dataclass(frozen=True)
class Layer:
    """One layer."""

    attention: Attention
    feed_forward: FeedForward
    norm: Norm | None
    """Before attention."""
    second_norm: Norm | None
    """Before the feed-forward part."""
    attended_norm: Norm | None = None
    """After attention, before it is added."""
    fed_norm: Norm | None = None
    """After the feed-forward part, before it is added."""
    parallel: bool = False
    """Both parts read the layer's input; without a second norm, they share the first."""


@dataclass(frozen=True)
class Sizes:
    """The sizes that weights do not tell."""

    heads: int
    """Of queries."""
    kv_heads: int
    """Of keys and values."""
    width: int
    """Of a head."""
    context: int
    """The number of positions."""


@dataclass(frozen=True)
class Decoder:
    """A causal language model."""

    sizes: Sizes
    embedding: Any
    """[vocabulary, hidden]."""
    layers: Sequence[Layer]
    norm: Norm
    head: Product | None
    """None if the embedding's table is the head."""
    positions: Any = None
    """Learned positions [context, hidden], or None."""
    rotary: Mapping[str, Rotary] = field(default_factory=dict)
    embedding_scale: float = 1.0
    softcap: float = 0.0
    """Bounds the logits; 0 for none."""
