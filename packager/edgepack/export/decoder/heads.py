"""The heads of a decoder, as wide and in the order that the attention operator needs.

The operator takes heads whose width is a multiple of 16, and turns the first half of all numbers of
a head against the second.  Zeros between them change no product, and where only a part of a head is
turned, the cosines of the rest are 1.
"""

from __future__ import annotations

from typing import Any

from edgepack.export.decoder.parts import Decoder, Norm, Product

_MULTIPLE = 16


def padded(width: int) -> int:
    """Return the width of a head as the operator needs it."""
    return -(-width // _MULTIPLE) * _MULTIPLE


def places(decoder: Decoder, rotary: str) -> list[int]:
    """Return where each number of a head goes."""
    width, half = decoder.sizes.width, padded(decoder.sizes.width) // 2
    turned = 2 * len(decoder.rotary[rotary].frequencies) if rotary else width
    rest = (width - turned) // 2
    first = [*range(turned // 2), *range(turned, turned + rest)]
    second = [*range(turned // 2, turned), *range(turned + rest, width)]
    found = [0] * width
    for start, numbers in ((0, first), (half, second)):
        for place, number in enumerate(numbers, start):
            found[number] = place
    return found


def widen_out(product: Product, count: int, where: list[int]) -> Product:
    """Return a product that makes `count` heads, each as the operator needs it."""
    weight = _widen(product.weight.reshape(count, len(where), -1), where)
    bias = product.bias
    if bias is not None:
        bias = _widen(bias.reshape(count, len(where), 1), where).reshape(-1)
    return Product(weight.reshape(-1, product.weight.shape[1]), bias)


def widen_in(product: Product, count: int, where: list[int]) -> Product:
    """Return the product that reads such heads."""
    turned = product.weight.T.reshape(count, len(where), -1)
    wide = _widen(turned, where).reshape(-1, product.weight.shape[0]).T
    return Product(wide, product.bias)


def widen_norm(norm: Norm, count: int, where: list[int]) -> Norm:
    """Return the norm of `count` such heads: more zeros make the mean square smaller."""
    share = len(where) / padded(len(where))
    weight = _widen(norm.weight.reshape(count, len(where), 1), where).reshape(-1)
    return Norm(weight * share**0.5, None, norm.epsilon * share)


def _widen(heads: Any, where: list[int]) -> Any:
    """Lay [heads, width, …] into wider heads of zeros."""
    import numpy as np

    wide = np.zeros((heads.shape[0], padded(len(where)), heads.shape[2]), heads.dtype)
    wide[:, where] = heads
    return wide
