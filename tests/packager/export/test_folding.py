"""What is the same for every text is computed at export, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgepack.export.folding import decide_branches, fold_products

IDS = np.array([[3, 1, 4, 1, 5]], dtype=np.int64)


def _model(nodes: list[Any], weights: dict[str, Any]) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _branch(name: str, node: Any) -> Any:
    out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [out])


def _asking(condition: list[Any]) -> Any:
    """Return a graph that adds one or takes one away, as `condition` says."""
    chosen = helper.make_node(
        "If",
        ["asked"],
        ["y"],
        "if",
        then_branch=_branch("yes", helper.make_node("Add", ["x", "one"], ["more"])),
        else_branch=_branch("no", helper.make_node("Sub", ["x", "one"], ["less"])),
    )
    cast = helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT)
    weights = {"one": np.float32(1), "last": np.int64(1), "first": np.int64(0)}
    return _model([cast, *condition, chosen], weights)


def _run(model: Any) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input_ids": IDS})[0]


def test_a_question_about_shapes_with_one_answer_is_decided() -> None:
    """The branch that is always taken stands in place of the question, which is gone."""
    model = _asking(
        [
            helper.make_node("Shape", ["input_ids"], ["a"]),
            helper.make_node("Shape", ["x"], ["b"]),
            helper.make_node("Gather", ["a", "last"], ["tokens"]),
            helper.make_node("Gather", ["b", "last"], ["again"]),
            helper.make_node("Equal", ["tokens", "again"], ["asked"]),
        ]
    )
    wanted = _run(model)
    assert decide_branches(model) == 1
    assert {node.op_type for node in model.graph.node} == {"Cast", "Add", "Identity"}
    assert np.array_equal(_run(model), wanted)


def test_a_question_that_shapes_answer_differently_stays() -> None:
    """As many rows as tokens: true for one shape and false for another."""
    model = _asking(
        [
            helper.make_node("Shape", ["input_ids"], ["a"]),
            helper.make_node("Gather", ["a", "last"], ["tokens"]),
            helper.make_node("Gather", ["a", "first"], ["rows"]),
            helper.make_node("Equal", ["tokens", "rows"], ["asked"]),
        ]
    )
    assert decide_branches(model) == 0


def test_a_question_about_the_text_stays() -> None:
    """The probe's texts would all answer it alike; the next one may not."""
    model = _asking(
        [
            helper.make_node("ReduceMax", ["input_ids"], ["most"], keepdims=0),
            helper.make_node("Equal", ["most", "last"], ["asked"]),
        ]
    )
    assert decide_branches(model) == 0


def test_a_product_of_weights_is_computed_once() -> None:
    """It becomes a weight, those that made it go, and products with the text stay."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(4, 4)).astype(np.float32) for name in ("a", "b", "table")}
    model = _model(
        [
            helper.make_node("Transpose", ["a"], ["turned"]),
            helper.make_node("MatMul", ["turned", "b"], ["both"], "fixed"),
            helper.make_node("ReduceMax", ["input_ids"], ["one"], keepdims=0),
            helper.make_node("Cast", ["one"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["table", "x"], ["rows"]),
            helper.make_node("MatMul", ["rows", "both"], ["y"], "free"),
        ],
        weights,
    )
    wanted = _run(model)
    assert fold_products(model) == 1
    assert [node.name for node in model.graph.node if node.op_type == "MatMul"] == ["free"]
    assert {tensor.name for tensor in model.graph.initializer} == {"table", "both"}
    assert np.allclose(_run(model), wanted, rtol=1e-6)
