"""The sizes of a decoder, read from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError

_MULTIPLE = 16  # attention with rotary positions needs heads whose width is a multiple of this


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int
    """Width of a head, as trained."""
    padded: int
    """Width of a head, as the operator needs it."""
    context: int
    """The number of positions."""
    epsilon: float
    """The epsilon of its norms."""


def shape_of(config: Any) -> Shape:
    """Read the sizes from a config of transformers.

    Raises:
        InputError: it has sliding windows or another activation, which the graph does not support.

    """
    sliding = getattr(config, "layer_types", None) or []
    if "sliding_attention" in sliding or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        and config.model_type == "mistral"
    ):  # fmt: skip
        raise InputError(f"{config.model_type} with sliding windows is not built yet")
    if config.hidden_act != "silu":
        raise InputError(f"the activation {config.hidden_act!r} is not built yet")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=width,
        padded=-(-width // _MULTIPLE) * _MULTIPLE,
        context=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
    )
