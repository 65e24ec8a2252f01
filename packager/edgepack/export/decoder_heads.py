"""The heads of a decoder, as wide as the attention operator needs them.

The operator takes heads whose width is a multiple of 16.  Zeros after each half of a head, which
are turned together, change no product.
"""

from __future__ import annotations

from typing import Any

from edgepack.export.decoder_shape import Shape

Part = tuple[Any, Any]


def plain(weight: Any, bias: Any) -> Part:
    """Return weight and bias as arrays."""
    return weight.detach().numpy(), None if bias is None else bias.detach().numpy()


def widen_out(projection: Any, count: int, shape: Shape) -> Part:
    """Return weight and bias with heads as wide as the operator needs.

    The two halves of a head, which are rotated together, become the first parts of the wider
    halves.
    """
    weight, bias = plain(projection.weight, projection.bias)
    if shape.padded == shape.width:
        return weight, bias
    wide = _widen(weight.reshape(count, shape.width, -1), shape).reshape(-1, weight.shape[1])
    if bias is None:
        return wide, None
    return wide, _widen(bias.reshape(count, shape.width, 1), shape).reshape(-1)


def widen_in(projection: Any, shape: Shape) -> Part:
    """Return the output product, which reads the wider heads."""
    weight, bias = plain(projection.weight, projection.bias)
    if shape.padded == shape.width:
        return weight, bias
    turned = weight.T.reshape(shape.heads, shape.width, -1)
    return _widen(turned, shape).reshape(-1, weight.shape[0]).T, bias


def _widen(heads: Any, shape: Shape) -> Any:
    """Put zeros after each half of [heads, width, …]."""
    import numpy as np

    half, wide = shape.width // 2, shape.padded // 2
    halves = heads.reshape(heads.shape[0], 2, half, heads.shape[2])
    return np.pad(halves, [(0, 0), (0, 0), (0, wide - half), (0, 0)]).reshape(
        heads.shape[0], shape.padded, heads.shape[2]
    )
