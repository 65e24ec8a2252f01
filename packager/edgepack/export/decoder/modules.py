"""What the modules of transformers hold, as the parts of a decoder."""

from __future__ import annotations

from typing import Any

from edgepack.export.decoder.parts import Norm, Product, Rotary, Sizes
from edgepack_runtime.errors import InputError

_ROTARY = ("default", "linear", "llama3", "yarn", "longrope")


def sizes(config: Any) -> Sizes:
    """Read the sizes of a config."""
    heads = config.num_attention_heads
    context = config.max_position_embeddings
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) == "longrope":
        # Beyond these positions, transformers takes other frequencies for the whole text.
        context = getattr(config, "original_max_position_embeddings", None) or context
    return Sizes(
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        context=context,
    )


def window(config: Any, at: int) -> int:
    """Return how many positions a layer's attention sees; 0 for all."""
    window = getattr(config, "sliding_window", None)
    if not window or not getattr(config, "use_sliding_window", True):
        return 0
    kinds = getattr(config, "layer_types", None)
    return int(window) if not kinds or kinds[at] == "sliding_attention" else 0


def rotaries(base: Any, config: Any) -> dict[str, Rotary]:
    """Read the rotary positions of a decoder, and refuse kinds that are not built."""
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _ROTARY:
        raise InputError(f"rotary positions of the kind {kind!r} are not built yet")
    return {"global": rotary(base.rotary_emb)}


def rotary(module: Any) -> Rotary:
    """Read one module of rotary positions."""
    import numpy as np

    scale = float(getattr(module, "attention_scaling", 1.0))
    return Rotary(array(module.inv_freq).astype(np.float64), scale)


def head(head: Any, embedding: Any) -> Product | None:
    """Read the head; None if it is the embedding's table."""
    tied = head.weight.data_ptr() == embedding.weight.data_ptr() and head.bias is None
    return None if tied else product(head)


def array(tensor: Any) -> Any:
    """Return a tensor as an array."""
    return tensor.detach().numpy()


def product(linear: Any, scale: float = 1.0) -> Product:
    """Read a linear layer, times a factor."""
    bias = None if linear.bias is None else array(linear.bias) * scale
    return Product(array(linear.weight) * scale, bias)


def turned(convolution: Any) -> Product:
    """Read a product of GPT-2, whose weight is [in, out]."""
    return Product(array(convolution.weight).T, array(convolution.bias))


def norm(module: Any) -> Norm:
    """Read a norm; Gemma's weights are what is added to 1."""
    import torch

    weight = array(module.weight)
    if isinstance(module, torch.nn.LayerNorm):
        bias = weight * 0 if module.bias is None else array(module.bias)
        return Norm(weight, bias, module.eps)
    gemma = type(module).__name__.startswith("Gemma")
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    return Norm(weight + 1 if gemma else weight, None, epsilon)


def split(joined: Product, config: Any) -> tuple[Product, Product, Product]:
    """Split a product into queries, keys and values that lie one after the other."""
    found = sizes(config)
    first = found.heads * found.width
    second = first + found.kv_heads * found.width
    queries, keys, values = (
        Product(joined.weight[part], None if joined.bias is None else joined.bias[part])
        for part in (slice(first), slice(first, second), slice(second, None))
    )
    return queries, keys, values


def by_head(joined: Product, width: int) -> tuple[Product, Product, Product]:
    """Split a product in which each head has its queries, keys and values side by side."""
    hidden = joined.weight.shape[1]
    weights = joined.weight.reshape(-1, 3, width, hidden)
    biases = None if joined.bias is None else joined.bias.reshape(-1, 3, width)
    queries, keys, values = (
        Product(
            weights[:, at].reshape(-1, hidden),
            None if biases is None else biases[:, at].reshape(-1),
        )
        for at in range(3)
    )
    return queries, keys, values


def halves(joined: Product) -> tuple[Product, Product]:
    """Split a product without a bias into two of equal size."""
    size = len(joined.weight) // 2
    return Product(joined.weight[:size]), Product(joined.weight[size:])
