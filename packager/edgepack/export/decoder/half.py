"""Decoders that `write` wrote, in float16 for GPUs: all weights, keys, values and activations.

Logits are float32 again, as the rows that the runtime reads.
"""

from __future__ import annotations

from typing import Any

_LOGITS = "logits"


def to_float16(model: Any) -> Any:
    """Return the graph in float16.

    Weights of fewer bits stay what they are; their scales become float16.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for item in (*model.graph.input, *model.graph.output):
        kind = item.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT and item.name != _LOGITS:
            kind.elem_type = TensorProto.FLOAT16
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        for at, name in enumerate(node.output):
            node.output[at] = f"{name}.half" if name == _LOGITS else name
    cast = helper.make_node("Cast", [f"{_LOGITS}.half"], [_LOGITS], "cast", to=TensorProto.FLOAT)
    model.graph.node.append(cast)
    return model
