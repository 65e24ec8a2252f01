"""What rounding costs each layer of a decoder: by this, repair leaves layers as they are.

The cost of a product is the energy of its error over that of its result, on texts, with weights
rounded to four bits in blocks.  That of a layer is the sum over its products.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.export.decoder import gptq, nbits, read_windows
from edgepack.export.naming import decoder_layer

_WINDOWS = 16
_LARGEST = 7  # of four bits


def costs(model: Any, inputs: Mapping[str, Path]) -> dict[str, float]:
    """Return {layer: cost} of a float decoder; `inputs`: tokenizer, texts."""
    from onnx import numpy_helper

    squares = gptq.Squares(model, read_windows(inputs)[:_WINDOWS])
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, float] = {}
    for name in squares:
        layer = decoder_layer(name)
        if layer:
            weight = numpy_helper.to_array(weights[name])
            found[layer] = found.get(layer, 0.0) + _cost(weight, squares[name])
    return found


def _cost(weight: Any, squares: Any) -> float:
    """Return the cost of rounding a weight [in, out]; `squares` is X'X [in, in] of its inputs."""
    whole, scale = nbits.round_nearest(weight, _LARGEST)
    rounded = (whole * scale[..., None]).reshape(len(whole), -1)[:, : len(weight)].T
    signal = float((squares @ weight * weight).sum())
    error = rounded - weight
    return float((squares @ error * error).sum()) / max(signal, 1e-20)
