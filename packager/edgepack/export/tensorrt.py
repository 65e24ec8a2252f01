"""Check that an int8 graph has the form that TensorRT reads, rule by rule.

TensorRT takes int8 as explicit, symmetric QuantizeLinear and DequantizeLinear pairs in the plain
graph (TensorRT developer guide, explicit quantization; ONNX Runtime's e2e_tensorrt_bert_example).
A device refuses a graph that breaks a rule, or runs it slower than fp16; on a CPU, neither shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_PRODUCTS = ("MatMul", "Gemm", "Conv")
# Operators of LayerNorm, softmax and GELU as written by exporters: they are left in float.
_FLOAT = ("LayerNormalization", "ReduceMean", "Sqrt", "Pow", "Softmax", "Erf", "Gelu")


@dataclass(frozen=True)
class Breach:
    """A rule that a graph breaks, at one node."""

    rule: str
    node: str
    why: str


class _Graph:
    """A graph with lookup tables."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def of(self, *kinds: str) -> Iterator[Any]:
        """Yield the nodes of some kinds."""
        return (node for node in self.nodes if node.op_type in kinds)


def lint(path: Path) -> list[Breach]:
    """Return every breach in an ONNX file; empty if TensorRT 10 and 11 can read it as int8."""
    import onnx

    graph = _Graph(onnx.load(str(path)))
    return [
        Breach(rule.__name__.lstrip("_").replace("_", "-"), node, why)
        for rule in RULES
        for node, why in rule(graph)
    ]


def make_signed(model: Any) -> None:
    """Make the unsigned pairs of a graph signed; they quantize values that are never negative.

    NNCF gives activations after a ReLU the range 0…255.  TensorRT has only −128…127, so the scale
    grows by 255 ÷ 127.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.value_info[:]  # it would state the old types
    for node in model.graph.node:
        zero = weights.get(node.input[2]) if _is_pair(node) else None
        if zero is None or zero.data_type != TensorProto.UINT8:
            continue
        if numpy_helper.to_array(zero).any():
            continue  # asymmetric: the lint reports it
        names = [f"{node.input[1]}_signed", f"{node.input[2]}_signed"]
        if names[0] not in weights:
            scale = numpy_helper.to_array(weights[node.input[1]])
            made = (scale * np.float32(255 / 127), np.zeros(zero.dims, np.int8))
            tensors = [numpy_helper.from_array(*pair) for pair in zip(made, names, strict=True)]
            weights |= {tensor.name: tensor for tensor in tensors}
            model.graph.initializer.extend(tensors)
        node.input[1:3] = names


def _is_pair(node: Any) -> bool:
    return node.op_type in (QUANTIZE, DEQUANTIZE) and len(node.input) > 2


def products_at(path: Path, breaches: Sequence[Breach]) -> set[str]:
    """Name the products to leave in float so that the breaches go away.

    These are the products themselves, or those that read the pair that breaks a rule.
    """
    import onnx

    graph = _Graph(onnx.load(str(path)))
    nodes = {node.name: node for node in graph.nodes}
    waiting = [nodes[breach.node] for breach in breaches if breach.node in nodes]
    found: set[str] = set()
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.op_type in _PRODUCTS:  # and those that share an input, since it has only one form
            sharing = (reader for name in node.input for reader in graph.readers[name])
            found |= {node.name, *(n.name for n in sharing if n.op_type in _PRODUCTS)}
        elif node.name not in seen:
            seen.add(node.name)
            waiting.extend(reader for name in node.output for reader in graph.readers.get(name, []))
    return found


Found = Iterator[tuple[str, str]]


def _only_standard_operators(graph: _Graph) -> Found:
    """TensorRT does not read ONNX Runtime's own fused operators."""
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield node.name, f"{node.domain}.{node.op_type} is not a standard operator"


def _no_dynamic_quantization(graph: _Graph) -> Found:
    """Scales must be constants: TensorRT has no dynamic ranges."""
    for node in graph.of("DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"):
        yield node.name, f"{node.op_type} is not a Q/DQ pair"


def _scales_are_constants(graph: _Graph) -> Found:
    for node in graph.of(QUANTIZE, DEQUANTIZE):
        if node.input[1] not in graph.weights:
            yield node.name, f"scale {node.input[1]} is computed"


def _types_are_int8(graph: _Graph) -> Found:
    """TensorRT 10 and 11 quantize to int8; uint8 is refused."""
    import onnx

    for node in graph.of(QUANTIZE, DEQUANTIZE):
        zero = graph.weights.get(node.input[2]) if len(node.input) > 2 else None
        kind = zero.data_type if zero is not None else onnx.TensorProto.UINT8
        if zero is None and node.op_type == DEQUANTIZE and node.input[0] in graph.weights:
            kind = graph.weights[node.input[0]].data_type
        if kind != onnx.TensorProto.INT8:
            yield node.name, f"its type is {onnx.TensorProto.DataType.Name(kind)}"


def _int8_is_read_by_pairs_alone(graph: _Graph) -> Found:
    """Only pairs may read int8 in TensorRT: no Gather, no Cast (onnx-tensorrt's operators)."""
    import onnx

    for name, tensor in graph.weights.items():
        if tensor.data_type != onnx.TensorProto.INT8:
            continue
        for reader in graph.readers.get(name, []):
            if reader.op_type not in (QUANTIZE, DEQUANTIZE):
                yield reader.name, f"{reader.op_type} reads the int8 weight {name}"


def _zero_points_are_zero(graph: _Graph) -> Found:
    """Quantization is symmetric."""
    from onnx import numpy_helper

    for node in graph.of(QUANTIZE, DEQUANTIZE):
        zero = graph.weights.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and numpy_helper.to_array(zero).any():
            yield node.name, "its zero point is not zero"


def _scales_are_positive(graph: _Graph) -> Found:
    from onnx import numpy_helper

    for node in graph.of(QUANTIZE, DEQUANTIZE):
        scale = graph.weights.get(node.input[1])
        if scale is not None and not (numpy_helper.to_array(scale) > 0).all():
            yield node.name, "a scale is zero or negative"


def _activations_are_per_tensor(graph: _Graph) -> Found:
    """Activations have one scale; only weights may have one for each channel."""
    for node in graph.of(QUANTIZE):
        scale = graph.weights.get(node.input[1])
        if scale is not None and _size(scale) > 1 and node.input[0] not in graph.weights:
            yield node.name, f"an activation has {_size(scale)} scales"


def _weights_are_per_channel(graph: _Graph) -> Found:
    """A weight of a product has one scale for each output channel: the last axis of a MatMul."""
    for node in graph.of("MatMul"):
        pair = graph.maker.get(node.input[1])
        weight = _constant(graph, pair)
        if pair is None or weight is None:
            continue
        axis = next((a.i for a in pair.attribute if a.name == "axis"), 1)
        scale = graph.weights.get(pair.input[1])
        channels = weight.dims[-1]
        right = scale is not None and _size(scale) == channels
        if not right or axis % len(weight.dims) != len(weight.dims) - 1:
            yield node.name, "its weight has no scale for each output channel"


def _pairs_are_complete(graph: _Graph) -> Found:
    """Only DQs read a Q, and each DQ reads a Q or a constant, with the same scale."""
    for node in graph.of(QUANTIZE):
        readers = graph.readers.get(node.output[0], [])
        if not readers or any(reader.op_type != DEQUANTIZE for reader in readers):
            yield node.name, "its output must be read only by DequantizeLinear"
        elif any(list(reader.input[1:]) != list(node.input[1:]) for reader in readers):
            yield node.name, "its pair has a different scale"
    for node in graph.of(DEQUANTIZE):
        maker = graph.maker.get(node.input[0])
        if node.input[0] not in graph.weights and (maker is None or maker.op_type != QUANTIZE):
            yield node.name, "it reads neither a QuantizeLinear nor a constant"


def _products_are_int8_on_both_sides(graph: _Graph) -> Found:
    """A product with one quantized input runs in float, and pays for the conversion."""
    for node in graph.of(*_PRODUCTS):
        quantized = [_dequantized(graph, name) for name in node.input[:2]]
        if any(quantized) and not all(quantized):
            yield node.name, "only one of its inputs is quantized"


def _layer_norm_stays_in_float(graph: _Graph) -> Found:
    """LayerNorm, softmax and GELU use float: in int8 they lose quality and save no time."""
    for node in graph.of(*_FLOAT):
        if any(_dequantized(graph, name) for name in node.input):
            yield node.name, f"{node.op_type} reads a quantized value"


def _no_bias_is_quantized(graph: _Graph) -> Found:
    """A bias is added in float; int32 biases are refused."""
    for node in graph.of(DEQUANTIZE):
        weight = graph.weights.get(node.input[0])
        if weight is not None and len(weight.dims) < 2:
            yield node.name, "a bias is quantized"


def _scales_match_the_precision(graph: _Graph) -> Found:
    """Scales are float32, like all floats of the graph: strongly typed networks mix no types."""
    import onnx

    for node in graph.of(QUANTIZE, DEQUANTIZE):
        scale = graph.weights.get(node.input[1])
        if scale is not None and scale.data_type != onnx.TensorProto.FLOAT:
            yield node.name, "its scale is not float32"


def _opset_has_per_channel(graph: _Graph) -> Found:
    """Q/DQ with an axis came with opset 13; TensorRT 10 reads up to 22."""
    for item in graph.model.opset_import:
        if item.domain in ("", "ai.onnx") and not 13 <= item.version <= 22:
            yield "graph", f"opset {item.version} is not between 13 and 22"


RULES: tuple[Callable[[_Graph], Found], ...] = (
    _only_standard_operators,
    _no_dynamic_quantization,
    _scales_are_constants,
    _types_are_int8,
    _int8_is_read_by_pairs_alone,
    _zero_points_are_zero,
    _scales_are_positive,
    _activations_are_per_tensor,
    _weights_are_per_channel,
    _pairs_are_complete,
    _products_are_int8_on_both_sides,
    _layer_norm_stays_in_float,
    _no_bias_is_quantized,
    _scales_match_the_precision,
    _opset_has_per_channel,
)


def _dequantized(graph: _Graph, name: str) -> bool:
    maker = graph.maker.get(name)
    while maker is not None and maker.op_type in ("Transpose", "Reshape", "Squeeze", "Unsqueeze"):
        maker = graph.maker.get(maker.input[0])
    return maker is not None and maker.op_type == DEQUANTIZE


def _constant(graph: _Graph, pair: Any) -> Any:
    """Return the constant that a DequantizeLinear reads, through a Q or directly."""
    if pair is None or pair.op_type != DEQUANTIZE:
        return None
    if pair.input[0] in graph.weights:
        return graph.weights[pair.input[0]]
    maker = graph.maker.get(pair.input[0])
    return graph.weights.get(maker.input[0]) if maker is not None else None


def _size(tensor: Any) -> int:
    from math import prod

    return prod(tensor.dims)
