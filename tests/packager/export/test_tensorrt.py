"""The form that TensorRT reads: each rule is broken on purpose, and found by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.export import onnx_quantize as quantize
from edgepack.export import onnxruntime as exporter
from edgepack.export.tensorrt import RULES, lint, make_signed, products_at
from edgepack_runtime import Bundle

Get = Callable[..., Path]
Change = Callable[[Any], object]
WIDTH, LABELS = 8, 4


def _graph() -> Any:
    """Return LayerNorm(x · int8 weight + bias) in the form that TensorRT wants."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(-127, 128, (WIDTH, LABELS)).astype(np.int8),
        "w_scale": rng.uniform(0.01, 0.1, LABELS).astype(np.float32),
        "w_zero": np.zeros(LABELS, np.int8),
        "x_scale": np.array(0.1, np.float32),
        "x_zero": np.array(0, np.int8),
        "bias": rng.normal(size=LABELS).astype(np.float32),
        "gamma": np.ones(LABELS, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], "dqw", axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["product"], "product"),
        helper.make_node("Add", ["product", "bias"], ["sum"], "add"),
        helper.make_node("LayerNormalization", ["sum", "gamma"], ["y"], "norm"),
    ]
    made = helper.make_graph(
        nodes,
        "valid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, LABELS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _node(model: Any, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def _set(model: Any, name: str, value: Any) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def _drop_weight(model: Any, name: str) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _read(model: Any, name: str, place: int, value: str) -> None:
    _node(model, name).input[place] = value


def _quantize_bias(model: Any) -> None:
    _set(model, "bias", np.zeros(LABELS, np.int8))
    weights = [("b_scale", np.ones((), np.float32)), ("b_zero", np.zeros((), np.int8))]
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights)
    pair = helper.make_node("DequantizeLinear", ["bias", "b_scale", "b_zero"], ["bd"], "dqb")
    model.graph.node.insert(0, pair)
    _read(model, "add", 1, "bd")


def _norm_of_quantized(model: Any) -> None:
    scale = ["x_scale", "x_zero"]
    pair = [
        helper.make_node("QuantizeLinear", ["sum", *scale], ["sq"], "q2"),
        helper.make_node("DequantizeLinear", ["sq", *scale], ["sd"], "dq2"),
    ]
    for place, node in enumerate(pair, 5):
        model.graph.node.insert(place, node)
    _read(model, "norm", 0, "sd")


def _gather_int8(model: Any) -> None:
    look_up = helper.make_node("Gather", ["w", "ids"], ["rows"], "look-up")
    model.graph.node.insert(0, look_up)


BREACHES: dict[str, Change] = {
    "only-standard-operators": lambda m: setattr(_node(m, "norm"), "domain", "com.microsoft"),
    "no-dynamic-quantization": lambda m: setattr(_node(m, "q"), "op_type", "DynamicQuantizeLinear"),
    "scales-are-constants": lambda m: _drop_weight(m, "x_scale"),
    "types-are-int8": lambda m: _set(m, "x_zero", np.array(0, np.uint8)),
    "int8-is-read-by-pairs-alone": _gather_int8,
    "zero-points-are-zero": lambda m: _set(m, "x_zero", np.array(3, np.int8)),
    "scales-are-positive": lambda m: _set(m, "w_scale", np.zeros(LABELS, np.float32)),
    "activations-are-per-tensor": lambda m: _set(m, "x_scale", np.ones(WIDTH, np.float32)),
    "weights-are-per-channel": lambda m: _set(m, "w_scale", np.array([0.1], np.float32)),
    "pairs-are-complete": lambda m: _read(m, "dq", 1, "w_scale"),
    "products-are-int8-on-both-sides": lambda m: _read(m, "product", 0, "x"),
    "layer-norm-stays-in-float": _norm_of_quantized,
    "no-bias-is-quantized": _quantize_bias,
    "scales-match-the-precision": lambda m: _set(m, "x_scale", np.array(0.1, np.float16)),
    "opset-has-per-channel": lambda m: setattr(m.opset_import[0], "version", 11),
}


def _lint(model: Any, folder: Path) -> set[str]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return {breach.rule for breach in lint(path)}


def test_the_right_form_has_no_breach_and_runs(tmp_path: Path) -> None:
    """The graph that the rules describe is one that ONNX Runtime computes."""
    model = _graph()
    assert _lint(model, tmp_path) == set()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert np.isfinite(session.run(None, {"x": np.ones((2, WIDTH), np.float32)})[0]).all()


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule(rule: str, tmp_path: Path) -> None:
    """Each rule, broken alone, is among what the linter finds."""
    model = _graph()
    BREACHES[rule](model)
    assert rule in _lint(model, tmp_path)


def test_every_rule_has_a_test() -> None:
    """No rule is without a graph that breaks it."""
    assert {rule.__name__.lstrip("_").replace("_", "-") for rule in RULES} == set(BREACHES)


@pytest.mark.parametrize("kind", ["bert-ner", "roberta-ner", "sentence"])
def test_what_is_built_for_jetson_has_the_form(kind: str, bundle: Get, tmp_path: Path) -> None:
    """The int8 graphs of real exports keep every rule."""
    built = Bundle.open(bundle(kind, "jetson-orin"))
    variant = built.manifest.variant("tensorrt-int8")
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(built.files(variant)["model.onnx"]))
    assert lint(path) == []
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(str(path)).graph.node)


def test_every_linear_layer_of_a_distilbert_is_int8(bundle: Get) -> None:
    """What comes after a ReLU is unsigned to NNCF, and its product is int8 for TensorRT still."""
    built = Bundle.open(bundle("distilbert", "jetson-orin"))
    files = built.files(built.manifest.variant("tensorrt-int8"))
    graph = onnx.load_from_string(bytes(files["model.onnx"])).graph
    nodes, weights = graph.node, {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node.op_type for node in nodes for name in node.output}
    linear = [
        node
        for node in nodes
        if node.op_type in ("MatMul", "Gemm")
        and not node.name.endswith(("attention/MatMul", "attention/MatMul_1"))
    ]
    assert len(linear) == 2 * 6 + 2  # of each layer, and of the head
    sources = {maker.get(name) for node in linear for name in node.input[:2]}
    assert sources == {"DequantizeLinear"}
    assert "Relu" in maker.values()
    zeros = [weights[node.input[2]] for node in nodes if node.op_type == "QuantizeLinear"]
    assert {zero.data_type for zero in zeros} == {TensorProto.INT8}


def test_a_large_embedding_is_float16_for_tensorrt_alone(tmp_path: Path) -> None:
    """TensorRT gathers no int8; other static forms keep the table at a quarter of its size."""
    export, strict, plain = (tmp_path / name for name in ("export", "strict", "plain"))
    for folder in (export, strict, plain):
        folder.mkdir()
    rng = np.random.default_rng(0)
    weights = {"table": rng.normal(size=(8000, 16)), "w": rng.normal(size=(16, 16))}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], "/embeddings/Gather"),
        helper.make_node("MatMul", ["rows", "w"], ["y"], "/layer/MatMul"),
    ]
    made = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "tokens", 16])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(export / "model.onnx"))
    (export / "traits.json").write_text('{"sees_padding": false}')
    with pytest.MonkeyPatch.context() as patch:
        feeds = [{"input_ids": rng.integers(0, 8000, (1, 9))} for _ in range(8)]
        patch.setattr(quantize, "calibration_feeds", lambda _: iter(feeds))
        for folder in (strict, plain):
            settings = exporter.VariantSettings("int8", "static", tensorrt=folder is strict)
            exporter.make_variant(settings, {"export": export}, folder)
    assert lint(strict / "model.onnx") == []
    assert {b.rule for b in lint(plain / "model.onnx")} == {"int8-is-read-by-pairs-alone"}
    for folder, least, most in (
        (strict, 2 * 8000 * 16, 2.2 * 8000 * 16),
        (plain, 1 * 8000 * 20, 1.2 * 8000 * 20),
    ):
        assert least < (folder / "model.onnx").stat().st_size < most
    ids = rng.integers(0, 8000, (1, 9))
    float32, int8 = (
        onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        ).run(None, {"input_ids": ids})[0]
        for folder in (export, strict)
    )
    assert np.corrcoef(float32.ravel(), int8.ravel())[0, 1] > 0.99


def test_the_engine_shapes_cover_what_the_runtime_sends(bundle: Get) -> None:
    """TensorRT's profile goes from one token to a full batch of the longest texts."""
    manifest = Bundle.open(bundle("bert-ner", "jetson-orin")).manifest
    options = manifest.variant("tensorrt-fp16").options
    assert options["prepare"] is True
    shapes = options["provider_options"]
    assert "input_ids:1x1" in shapes["trt_profile_min_shapes"]
    assert manifest.task.text
    assert f"input_ids:8x{manifest.task.text.max_length}" in shapes["trt_profile_max_shapes"]
    assert shapes["trt_engine_cache_enable"] == "1"
    assert options["max_rows"] == 8


def _session(model: Any) -> Any:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_what_is_never_negative_is_made_signed(tmp_path: Path) -> None:
    """An unsigned pair, as after a ReLU, becomes one that TensorRT reads, of the same range."""
    model = _graph()
    _set(model, "x_zero", np.array(0, np.uint8))
    unsigned = _session(model)
    x = np.linspace(0, 20, 4 * WIDTH, dtype=np.float32).reshape(4, WIDTH)
    wanted = unsigned.run(None, {"x": x})[0]
    make_signed(model)
    onnx.save(model, str(tmp_path / "model.onnx"))
    assert lint(tmp_path / "model.onnx") == []
    got = _session(model).run(None, {"x": x})[0]
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.999


def test_the_products_at_a_fault_are_named(tmp_path: Path) -> None:
    """What has to stay in float is the product that reads the pair, and all that share a weight."""
    model = _graph()
    other = helper.make_node("MatMul", ["x", "wd"], ["again"], "other")
    model.graph.node.append(other)
    _set(model, "x_zero", np.array(0, np.uint8))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    assert products_at(path, lint(path)) == {"product", "other"}
