"""Compute at export time what a graph computes the same way for every text.

Exporters write an `If` for a question about shapes, even if a model always answers it the same way:
DeBERTa, for example, asks whether there are as many queries as keys.  No quantizer orders such
graphs correctly, and a GPU waits for the CPU at each `If`.  Exporters also write products of two
weights.  No quantizer expects these, and every device would compute them for each text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SHAPES = ((1, 1), (1, 7), (2, 8), (3, 13))  # rows, tokens


def decide_branches(model: Any) -> int:
    """Replace each `If` by the branch that is always taken; return how many were replaced.

    A branch is always taken if its condition depends only on shapes and constants, and is the same
    for every tested number of rows and tokens.
    """
    asked = [node for node in model.graph.node if node.op_type == "If"]
    decidable = [node for node in asked if _depends_on_shapes_alone(model, node.input[0])]
    if not decidable:
        return 0
    taken = _answers(model, [node.input[0] for node in decidable])
    chosen = {id(node): taken[node.input[0]] for node in decidable if node.input[0] in taken}
    nodes: list[Any] = []
    for node in model.graph.node:
        if id(node) in chosen:
            nodes.extend(_branch(model, node, taken=chosen[id(node)]))
        else:
            nodes.append(node)
    _keep(model, nodes)
    _drop_unread(model)
    return len(chosen)


def fold_products(model: Any) -> int:
    """Replace each matrix product of constants by its result; return how many there were."""
    from onnx import numpy_helper

    constant = {tensor.name for tensor in model.graph.initializer}
    products: dict[str, str] = {}
    for node in model.graph.node:  # each node follows those that it reads
        fixed = all(name in constant for name in node.input if name)
        if fixed and not any(item.HasField("g") for item in node.attribute):
            constant.update(node.output)
            if node.op_type in ("MatMul", "Gemm"):
                products[node.output[0]] = node.name
    if not products:
        return 0
    values = _run(model, list(products), [(1, 1)])[0]
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in zip(products, values, strict=True)
    )
    _keep(model, [node for node in model.graph.node if node.output[0] not in products])
    _drop_unread(model)
    read = {name for node in model.graph.node for name in _reads(node)}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    return len(products)


def _depends_on_shapes_alone(model: Any, name: str) -> bool:
    """Tell whether a value depends on inputs only through `Shape`."""
    maker = {output: node for node in model.graph.node for output in node.output}
    inputs = {item.name for item in model.graph.input}
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop()
        if current in inputs:
            return False
        node = maker.get(current)
        if current in seen or node is None or node.op_type == "Shape":
            continue
        seen.add(current)
        if any(item.HasField("g") for item in node.attribute):
            return False
        waiting.extend(node.input)
    return True


def _answers(model: Any, conditions: Sequence[str]) -> dict[str, bool]:
    """Run the graph at several shapes; return the conditions with one answer, and that answer."""
    names = list(dict.fromkeys(conditions))
    found: dict[str, set[bool]] = {name: set() for name in names}
    for values in _run(model, names, _SHAPES):
        for name, value in zip(names, values, strict=True):
            found[name].add(bool(value.ravel()[0]))
    return {name: answers.pop() for name, answers in found.items() if len(answers) == 1}


def _run(model: Any, names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> list[list[Any]]:
    """Return the values of `names` for inputs of ones, shape by shape."""
    import numpy as np
    import onnx
    import onnxruntime

    asking = _copy(model)
    del asking.graph.output[:]
    asking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        asking.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = [item.name for item in session.get_inputs()]
    return [
        [
            np.asarray(value)
            for value in session.run(
                names, {name: np.ones(shape, dtype=np.int64) for name in inputs}
            )
        ]
        for shape in shapes
    ]


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def _keep(model: Any, nodes: Sequence[Any]) -> None:
    """Replace the nodes of a graph by these."""
    kept = [_copy(node) for node in nodes]  # emptying the list would free them
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _branch(model: Any, node: Any, *, taken: bool) -> list[Any]:
    """Return the nodes of one branch, with its outputs renamed to those of the `If` node."""
    import onnx

    wanted = "then_branch" if taken else "else_branch"
    graph = next(item.g for item in node.attribute if item.name == wanted)
    model.graph.initializer.extend(graph.initializer)
    names = [item.name for item in graph.output]
    passed_on = [
        onnx.helper.make_node("Identity", [inner], [outer])
        for inner, outer in zip(names, node.output, strict=True)
    ]
    return [*graph.node, *passed_on]


def _drop_unread(model: Any) -> None:
    """Remove the nodes that only a condition or the other branch reads."""
    while True:
        read = {name for node in model.graph.node for name in _reads(node)}
        read |= {item.name for item in model.graph.output}
        kept = [node for node in model.graph.node if any(name in read for name in node.output)]
        if len(kept) == len(model.graph.node):
            return
        _keep(model, kept)


def _reads(node: Any) -> list[str]:
    """Name what a node reads, including the nodes of its inner graphs."""
    inner = (n for item in node.attribute if item.HasField("g") for n in item.g.node)
    return [*node.input, *(name for n in inner for name in _reads(n))]
