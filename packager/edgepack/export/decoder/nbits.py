"""Decoders that `write` wrote, with weights of eight or four bits in blocks that share a scale.

Products are computed in int8 with activations scaled block by block, so an answer does not depend
on how its prompt is split.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from edgepack.export.decoder import gptq
from edgepack.export.decoder.onnx_graph import MICROSOFT
from edgepack.export.naming import decoder_layer

BLOCK = 32  # weights that share a scale, at least
_INT8_COMPUTE = 4  # `accuracy_level`; without it, each call converts all weights to float
HEAD = "lm_head.weight"
Rounded = tuple[Any, Any]
"""Whole numbers [out, blocks, block] around 0, and their scales [out, blocks]."""


def to_int8(model: Any, kept: Collection[str] = (), block: int = BLOCK) -> Any:
    """Return a decoder with int8 weights; the embedding has a scale for each row.

    Args:
        model: the float32 graph, which is changed.
        kept: layers, as `decoder_layer` names them, that stay in float.
        block: weights that share a scale.

    """

    def rounded(name: str, weight: Any) -> tuple[int, Rounded] | None:
        return None if decoder_layer(name) in kept else (8, round_nearest(weight, block=block))

    return _quantize(model, rounded)


def to_int4(
    model: Any,
    texts: Sequence[Sequence[int]],
    kept: Collection[str] = (),
    block: int = BLOCK,
) -> Any:
    """Return a decoder with int4 weights; its embedding and its head are int8.

    Args:
        model: the float32 graph, which is changed.
        texts: token ids to see by which inputs of each product matter; see `gptq`.
        kept: layers, as `decoder_layer` names them, that are int8 too.
        block: weights that share a scale.

    """
    untie(model)
    squares = gptq.Squares(model, texts)

    def rounded(name: str, weight: Any) -> tuple[int, Rounded]:
        if name == HEAD or decoder_layer(name) in kept:
            return 8, round_nearest(weight, block=block)
        return 4, gptq.round_four(weight, squares[name], block)

    return _quantize(model, rounded)


def round_nearest(weight: Any, largest: int = 127, block: int = BLOCK) -> Rounded:
    """Round a weight [in, out] to at most `largest`, each block by its largest number."""
    import numpy as np

    size, count = weight.shape
    blocks = -(-size // block)
    padded = np.pad(weight.T, [(0, 0), (0, blocks * block - size)]).reshape(count, blocks, block)
    scale = np.maximum(np.abs(padded).max(axis=2), 1e-12).astype(np.float32) / largest
    return np.rint(padded / scale[..., None]).astype(np.int16), scale


def _quantize(model: Any, rounded: Callable[[str, Any], tuple[int, Rounded] | None]) -> Any:
    from onnx import numpy_helper

    from edgepack.export import embeddings

    untie(model)
    weights = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            tensor = weights[node.input[1]]
            found = rounded(tensor.name, numpy_helper.to_array(tensor))
            if found is None:
                continue
            size = tensor.dims[0]
            model.graph.initializer.remove(tensor)
            _replace(model, node, (found[0], size), found[1])
    return embeddings.to_int8(model)


def _replace(model: Any, node: Any, form: tuple[int, int], rounded: Rounded) -> None:
    """Change a product to one with blocks of `form`: bits, and numbers that it reads."""
    import numpy as np
    from onnx import helper, numpy_helper

    (bits, size), (whole, scale) = form, rounded
    stored = (whole + (1 << bits - 1)).astype(np.uint8)
    if bits == 4:
        stored = stored[..., 0::2] | stored[..., 1::2] << 4
    name = node.input[1]
    for key, array in ((f"int{bits}", stored), ("scale", scale.reshape(-1))):
        model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_{key}"))
    how = {
        "K": size,
        "N": len(whole),
        "bits": bits,
        "block_size": whole.shape[2],
        "accuracy_level": _INT8_COMPUTE,
    }
    node.op_type, node.domain = "MatMulNBits", MICROSOFT
    node.input[1] = f"{name}_int{bits}"
    node.input.append(f"{name}_scale")
    node.attribute.extend(helper.make_attribute(key, value) for key, value in how.items())


def untie(model: Any) -> None:
    """Give a head that reads the embedding's table its own weight, which can be quantized."""
    from onnx import numpy_helper

    heads = [n for n in model.graph.node if n.op_type == "Gemm" and n.input[1] == "embedding"]
    tables = {t.name: t for t in model.graph.initializer}
    for node in heads:
        weight = numpy_helper.to_array(tables[node.input[1]]).T.copy()
        model.graph.initializer.append(numpy_helper.from_array(weight, HEAD))
        node.op_type, node.input[1] = "MatMul", HEAD
        del node.attribute[:]
