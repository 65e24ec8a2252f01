"""Embedding tables of an ONNX graph, in int8 or float16: the largest weights of a small model."""

from __future__ import annotations

from typing import Any

LARGE_TABLE = 100_000  # elements; smaller embeddings are not worth two more nodes


def lookups(model: Any) -> list[str]:
    """Name the nodes that look up rows of a weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "Gather" and n.input[0] in weights]


def to_int8(model: Any) -> Any:
    """Store large float embedding tables as int8, with one scale for each row.

    `Gather(table, ids)` becomes `Gather(int8) × Gather(scale)`: only the rows that a text needs are
    converted to float.  These are standard operators, so every engine can read them.
    """
    from onnx import numpy_helper

    tables = {t.name: t for t in model.graph.initializer if len(t.dims) == 2}
    nodes = []
    for node in model.graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.dims[0] * table.dims[1] < LARGE_TABLE:
            nodes.append(node)
            continue
        if f"{table.name}_int8" not in {t.name for t in model.graph.initializer}:
            model.graph.initializer.extend(_rows_to_int8(numpy_helper.to_array(table), table.name))
        nodes.extend(_int8_gather(node, table.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused_weights(model)
    return model


def _rows_to_int8(table: Any, name: str) -> list[Any]:
    import numpy as np
    from onnx import numpy_helper

    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    quantized = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
    return [
        numpy_helper.from_array(quantized, f"{name}_int8"),
        numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"),
    ]


def _int8_gather(node: Any, table: str) -> list[Any]:
    from onnx import TensorProto, helper

    ids, output, base = node.input[1], node.output[0], f"{node.name or node.output[0]}_int8"
    return [
        helper.make_node(
            "Gather", [f"{table}_int8", ids], [f"{base}_rows"], f"{base}_rows", axis=0
        ),
        helper.make_node(
            "Gather", [f"{table}_scale", ids], [f"{base}_scale"], f"{base}_scale", axis=0
        ),
        helper.make_node(
            "Cast", [f"{base}_rows"], [f"{base}_cast"], f"{base}_cast", to=TensorProto.FLOAT
        ),
        helper.make_node("Mul", [f"{base}_cast", f"{base}_scale"], [output], f"{base}_mul"),
    ]


def _drop_unused_weights(model: Any) -> None:
    used = {name for node in model.graph.node for name in node.input}
    used |= {item.name for item in model.graph.output}
    rest = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(rest)


def to_float16(model: Any) -> None:
    """Store large float embedding tables as float16; the rows that a text needs become float32.

    This is the smallest form that TensorRT can gather: it takes int8 only from Q/DQ pairs.  The
    operators are standard, and the Cast is explicit, as a strongly typed network requires.
    """
    from onnx import TensorProto, helper, numpy_helper

    halves = _half_tables(model)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Gather" and node.input[0] in halves:
            output, rows = node.output[0], f"{node.output[0]}_half"
            node.output[0] = rows
            cast = helper.make_node("Cast", [rows], [output], f"{rows}_cast", to=TensorProto.FLOAT)
            nodes.append(cast)
    for tensor in model.graph.initializer:
        if tensor.name in halves:
            tensor.CopyFrom(numpy_helper.from_array(halves[tensor.name], tensor.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _half_tables(model: Any) -> dict[str, Any]:
    """Return large float tables in float16, if only a Gather reads them and float16 holds them.

    Tables whose rows a layer norm reads directly are left out: ONNX Runtime fuses a layer norm that
    is written as single operators with the Cast before it, which gives a graph of two types.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    others = {name for n in model.graph.node if n.op_type != "Gather" for name in n.input}
    averaged = {n.input[0] for n in model.graph.node if n.op_type == "ReduceMean"}
    normed = {n.input[0] for n in model.graph.node if averaged & set(n.output)}
    limit = np.finfo(np.float16).max
    found = {}
    for tensor in model.graph.initializer:
        large = len(tensor.dims) == 2 and tensor.dims[0] * tensor.dims[1] >= LARGE_TABLE
        plain = large and tensor.name not in others and tensor.name not in normed
        if tensor.data_type == TensorProto.FLOAT and plain:
            table = numpy_helper.to_array(tensor)
            if np.abs(table).max() <= limit:
                found[tensor.name] = table.astype(np.float16)
    return found
