"""The names that exporters give to nodes."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


def layer_of(node: str) -> str:
    """Return the torch module that a node was exported from, by the node's name.

    In ONNX it is `/bert/encoder/layer.0/output/dense/MatMul`, in OpenVINO
    `__module.bert.encoder.layer.0.output.dense/ov_ext::linear/MatMul`.
    """
    if node.startswith("__module."):
        return node.removeprefix("__module.").partition("/")[0]
    return ".".join(node.strip("/").split("/")[:-1])


def decoder_layer(module: str) -> str:
    """Return the layer of a decoder that a module is in, such as `layers.3`; empty if in none.

    Families have other names for the list of layers (`model.layers`, `transformer.h`), so only the
    number counts.
    """
    found = _NUMBER.search(module)
    return f"layers.{found[1]}" if found else ""
