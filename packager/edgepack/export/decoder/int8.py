"""The int8 form of a decoder that `write` wrote: weights in blocks that share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MICROSOFT = "com.microsoft"
_BLOCK = 32  # weights that share a scale
_INT8_COMPUTE = 4  # `accuracy_level`; without it, each call converts all weights to float


def to_int8(model: Any) -> Any:
    """Return a decoder with int8 weights, in blocks that share a scale.

    Products are computed in int8 with activations scaled block by block, so an answer does not
    depend on how its prompt is split.  The embedding is int8 with a scale for each row.
    """
    from onnx import numpy_helper

    from edgepack.export import embeddings

    _untie(model)
    weights = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            name = node.input[1]
            model.graph.initializer.remove(weights[name])
            _quantize(model, node, numpy_helper.to_array(weights[name]))
    return embeddings.to_int8(model)


def _quantize(model: Any, node: Any, weight: Any) -> None:
    """Change a product with a weight [in, out] to one with int8 blocks, symmetric around 128."""
    import numpy as np
    from onnx import helper, numpy_helper

    size, count = weight.shape
    blocks = -(-size // _BLOCK)
    padded = np.pad(weight.T, [(0, 0), (0, blocks * _BLOCK - size)]).reshape(count, blocks, _BLOCK)
    scale = np.maximum(np.abs(padded).max(axis=2), 1e-12).astype(np.float32) / 127
    rounded = np.rint(padded / scale[..., None]).astype(np.int16) + 128
    name = node.input[1]
    for key, array in (("int8", rounded.astype(np.uint8)), ("scale", scale.reshape(-1))):
        model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_{key}"))
    how = {"K": size, "N": count, "bits": 8, "block_size": _BLOCK, "accuracy_level": _INT8_COMPUTE}
    node.op_type, node.domain = "MatMulNBits", _MICROSOFT
    node.input[1] = f"{name}_int8"
    node.input.append(f"{name}_scale")
    node.attribute.extend(helper.make_attribute(key, value) for key, value in how.items())


def _untie(model: Any) -> None:
    """Give a head that reads the embedding's table its own weight, which can be quantized."""
    from onnx import numpy_helper

    heads = [n for n in model.graph.node if n.op_type == "Gemm" and n.input[1] == "embedding"]
    tables: Mapping[str, Any] = {t.name: t for t in model.graph.initializer}
    for node in heads:
        weight = numpy_helper.to_array(tables[node.input[1]]).T.copy()
        model.graph.initializer.append(numpy_helper.from_array(weight, "lm_head.weight"))
        node.op_type, node.input[1] = "MatMul", "lm_head.weight"
        del node.attribute[:]
