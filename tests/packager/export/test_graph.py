"""Changes to ONNX graphs: weights stored once, embeddings in int8, the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.export import embeddings, graph
from edgepack_runtime import Bundle, InputError

Get = Callable[..., Path]
ROWS, WIDTH = 4000, 32


def _embedding(copies: int = 1) -> Any:
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(ROWS, WIDTH)) * rng.uniform(0.01, 10, (ROWS, 1))).astype(np.float32)
    weights = [numpy_helper.from_array(table, f"table_{i}") for i in range(copies)]
    nodes = [helper.make_node("Gather", [f"table_{i}", "ids"], [f"out_{i}"]) for i in range(copies)]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [None, None])
    outputs = [
        helper.make_tensor_value_info(f"out_{i}", TensorProto.FLOAT, [None, None, WIDTH])
        for i in range(copies)
    ]
    made = helper.make_graph(nodes, "embedding", [ids], outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _run(model: Any, ids: Any) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"ids": ids})


def test_int8_embeddings_are_near_and_a_quarter_the_size() -> None:
    """Each row keeps its own scale: the error stays below half a step of that row."""
    ids = np.arange(ROWS, dtype=np.int64)[None]
    wanted = _run(_embedding(), ids)[0][0]
    model = embeddings.to_int8(_embedding())
    got = _run(model, ids)[0][0]
    steps = np.abs(wanted).max(axis=1, keepdims=True) / 127
    assert (np.abs(wanted - got) <= steps * 0.501).all()
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert size == ROWS * (WIDTH + 4)


def test_float16_embeddings_are_near_and_half_the_size() -> None:
    """Eleven bits of each value are left; what comes out is float32 under the old name."""
    ids = np.arange(ROWS, dtype=np.int64)[None]
    wanted = _run(_embedding(), ids)[0]
    model = _embedding()
    embeddings.to_float16(model)
    got = _run(model, ids)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=2**-11, atol=2**-24)
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) == ROWS * WIDTH * 2


def test_a_table_that_is_read_otherwise_or_does_not_fit_stays_float32() -> None:
    """One that a product reads too, and one with a value beyond float16."""
    shared, wide = _embedding(), _embedding()
    shared.graph.node.append(helper.make_node("Shape", ["table_0"], ["shape"]))
    table = numpy_helper.to_array(wide.graph.initializer[0]).copy()
    table[0, 0] = 1e6
    wide.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table_0"))
    for model in (shared, wide):
        before = model.SerializeToString(deterministic=True)
        embeddings.to_float16(model)
        assert model.SerializeToString(deterministic=True) == before


def test_equal_weights_are_stored_once_and_answer_alike() -> None:
    """Two tables of equal content become one, and both outputs stay what they were."""
    model = _embedding(copies=2)
    saved = graph.share_equal_weights(model)
    assert saved == ROWS * WIDTH * 4
    assert len(model.graph.initializer) == 1
    first, second = _run(model, np.array([[1, 2]], dtype=np.int64))
    assert (first == second).all()


def test_a_graph_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    """Saving twice gives equal files, of an IR version that ONNX Runtime 1.20 reads."""
    for name in ("a.onnx", "b.onnx"):
        graph.save(_embedding(), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert onnx.load(tmp_path / "a.onnx").ir_version <= 10


@pytest.mark.parametrize("target", ["cpu-x86-64", "jetson-orin"])
def test_tied_layers_are_in_a_bundle_once(target: str, bundle: Get) -> None:
    """ALBERT's two layers share their weights: a bundle holds them once, in every variant."""
    opened = Bundle.open(bundle("albert", target))
    limit = {"int8": 40_000, "float16": 40_000}  # a second layer would be 8 or 16 KB more
    for variant in opened.manifest.variants:
        for path in variant.files:
            if path.endswith(".bin"):
                assert opened.manifest.file(path).size < 45_000
            if not path.endswith(".onnx"):
                continue
            model = onnx.load_model_from_string(bytes(opened.read(path)))
            weights = [t for t in model.graph.initializer if len(t.raw_data) > 1000]
            contents = {(t.data_type, t.raw_data) for t in weights}
            assert len(contents) == len(weights), variant.name
            assert sum(len(t.raw_data) for t in weights) < limit[variant.precision]


def test_the_tensorrt_form_is_symmetric_and_explicit(bundle: Get) -> None:
    """The int8 graph for TensorRT has zero points of 0 only, and no operator of ONNX Runtime."""
    opened = Bundle.open(bundle("bert-ner", "jetson-orin"))
    content = bytes(opened.read("tensorrt-int8/model.onnx"))
    model = onnx.load_model_from_string(content)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 10
    for node in pairs:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    per_channel = [n for n in pairs if n.op_type == "DequantizeLinear" and weights[n.input[1]].ndim]
    assert per_channel


def test_the_avx2_form_cannot_saturate(bundle: Get) -> None:
    """Its int8 weights stay within seven bits, so that u8×s8 sums of two fit 16 bits."""
    opened = Bundle.open(bundle("bert-ner"))
    model = onnx.load_model_from_string(bytes(opened.read("onnxruntime-int8-avx2/model.onnx")))
    named = {t.name: t for t in model.graph.initializer}
    used = {
        name
        for node in model.graph.node
        if node.op_type in ("MatMulInteger", "QAttention")
        for name in node.input
        if name in named and named[name].data_type == TensorProto.INT8
    }
    matrices = [numpy_helper.to_array(named[name]) for name in used]
    matrices = [matrix for matrix in matrices if matrix.ndim == 2]
    assert matrices
    assert all(np.abs(matrix.astype(int)).max() <= 64 for matrix in matrices)
    assert any(np.abs(matrix.astype(int)).max() > 32 for matrix in matrices)


def test_fusions_survive_dynamic_quantization(bundle: Get) -> None:
    """The dynamic form runs fused attention in int8, and no weights are multiplied in float."""
    opened = Bundle.open(bundle("bert-ner"))
    model = onnx.load_model_from_string(bytes(opened.read("onnxruntime-int8/model.onnx")))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QAttention") == 2
    assert kinds.count("SkipLayerNormalization") >= 4
    weights = {t.name for t in model.graph.initializer}
    floats = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert not floats


def test_a_graph_beyond_two_gigabytes_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one ONNX file cannot hold is refused with the remedy, and nothing is written."""
    monkeypatch.setattr(graph, "_MOST_BYTES", 1000)
    with pytest.raises(InputError, match="distil or prune"):
        graph.save(_embedding(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
