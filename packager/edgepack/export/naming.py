"""The names that exporters give to nodes."""

from __future__ import annotations


def layer_of(node: str) -> str:
    """Return the torch module that a node was exported from, by the node's name.

    In ONNX it is `/bert/encoder/layer.0/output/dense/MatMul`, in OpenVINO
    `__module.bert.encoder.layer.0.output.dense/ov_ext::linear/MatMul`.
    """
    if node.startswith("__module."):
        return node.removeprefix("__module.").partition("/")[0]
    return ".".join(node.strip("/").split("/")[:-1])
