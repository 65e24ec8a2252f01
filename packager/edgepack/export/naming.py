"""What exporters call things."""

from __future__ import annotations


def layer_of(node: str) -> str:
    """Return the torch module that a node was exported from, by the exporters' naming.

    ONNX has `/bert/encoder/layer.0/output/dense/MatMul`, OpenVINO
    `__module.bert.encoder.layer.0.output.dense/ov_ext::linear/MatMul`.
    """
    if node.startswith("__module."):
        return node.removeprefix("__module.").partition("/")[0]
    return ".".join(node.strip("/").split("/")[:-1])
