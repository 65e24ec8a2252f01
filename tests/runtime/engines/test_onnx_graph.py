"""A graph that names an external file reaches no engine, wherever the name stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from edgepack_runtime import Bundle, TrustError, engines
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines._onnx_graph import check_alone

IDS = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [None, None])
OUT = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None, 64])


def model() -> ModelProto:
    """Return a graph that gathers from a table of 64×64."""
    table = numpy_helper.from_array(np.ones((64, 64), np.float32), "table")
    node = helper.make_node("Gather", ["table", "input_ids"], ["out"])
    graph = helper.make_graph([node], "g", [IDS], [OUT], [table])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def elsewhere(location: str = "/etc/passwd") -> TensorProto:
    """Return a tensor whose values are those of a file."""
    tensor = numpy_helper.from_array(np.zeros((64, 64), np.float32), "table")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _attribute(**fields: Any) -> AttributeProto:
    return AttributeProto(name="value", **fields)


def _sparse(field: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(**{field: elsewhere()})


def _graph(**fields: Any) -> onnx.GraphProto:
    return onnx.GraphProto(**fields)


def _node(attribute: AttributeProto) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Constant", attribute=[attribute])


def _deep(levels: int) -> onnx.GraphProto:
    graph = _graph(initializer=[elsewhere()])
    for _ in range(levels):
        graph = _graph(node=[_node(_attribute(g=graph))])
    return graph


PLACES: dict[str, Callable[[ModelProto], Any]] = {
    "initializer": lambda m: m.graph.initializer.append(elsewhere()),
    "sparse values": lambda m: m.graph.sparse_initializer.append(_sparse("values")),
    "sparse indices": lambda m: m.graph.sparse_initializer.append(_sparse("indices")),
    "constant": lambda m: m.graph.node.append(_node(_attribute(t=elsewhere()))),
    "constants": lambda m: m.graph.node.append(_node(_attribute(tensors=[elsewhere()]))),
    "sparse constant": lambda m: m.graph.node.append(
        _node(_attribute(sparse_tensor=_sparse("values")))
    ),
    "sparse constants": lambda m: m.graph.node.append(
        _node(_attribute(sparse_tensors=[_sparse("values")]))
    ),
    "subgraph": lambda m: m.graph.node.append(_node(_attribute(g=_deep(0)))),
    "subgraphs": lambda m: m.graph.node.append(_node(_attribute(graphs=[_deep(0)]))),
    "deep subgraph": lambda m: m.graph.node.append(_node(_attribute(g=_deep(20)))),
    "function": lambda m: m.functions.add(node=[_node(_attribute(t=elsewhere()))]),
    "default of a function": lambda m: m.functions.add(attribute_proto=[_attribute(t=elsewhere())]),
    "initialization": lambda m: m.training_info.add(initialization=_deep(0)),
    "training step": lambda m: m.training_info.add(algorithm=_deep(0)),
    "location without a name": lambda m: setattr(
        m.graph.initializer[0], "data_location", TensorProto.EXTERNAL
    ),
    "name without a location": lambda m: m.graph.initializer[0].external_data.add(
        key="location", value="x"
    ),
    "compiled engine": lambda m: m.graph.node.append(onnx.NodeProto(op_type="EPContext")),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_named_nowhere(place: str) -> None:
    """A name of a file is refused in every place where ONNX allows a tensor."""
    made = model()
    check_alone(memoryview(made.SerializeToString()))
    PLACES[place](made)
    with pytest.raises(TrustError, match="names an external file"):
        check_alone(memoryview(made.SerializeToString()))


def test_values_that_were_brought_in_are_taken() -> None:
    """A tensor that says its values stand in the graph, as converters write it, is sound."""
    made = model()
    made.graph.initializer[0].data_location = TensorProto.DEFAULT
    check_alone(memoryview(made.SerializeToString()))


@pytest.mark.parametrize(
    "tail",
    [
        b"\x3b\x3c",
        b"\x06",
        b"\x02\x00",
        b"\x08",
        b"\x3a\x7f",
        b"\x3a\xff\xff\xff\xff\x7f",
        b"\x08" + b"\x80" * 10 + b"\x01",
        b"\xba\x80\x80\x80\x10\x00",
        b"\x3d\x00",
        b"\x39\x00",
    ],
    ids=[
        "group",
        "wire type",
        "field 0",
        "no value",
        "cut",
        "huge",
        "long varint",
        "33 bits",
        "cut fixed32",
        "cut fixed64",
    ],
)
def test_a_malformed_graph_is_refused(tail: bytes) -> None:
    """What two parsers may read in two ways is not handed on."""
    with pytest.raises(TrustError, match="malformed"):
        check_alone(memoryview(model().SerializeToString() + tail))


def _variant(engine: str, provider: str) -> Variant:
    return Variant("x", engine, provider, "float32", "none", (), Requires(), Tolerance(0.9, 0.9))


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "TensorrtExecutionProvider"])
@pytest.mark.parametrize("how", ["relative", "absolute"])
def test_weights_outside_of_the_graph_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, how: str
) -> None:
    """A graph that points to a file that is there does not reach ONNX Runtime."""
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(bytes(64 * 64 * 4))
    made = model()
    made.graph.initializer[0].CopyFrom(
        elsewhere("weights" if how == "relative" else str(tmp_path / "weights"))
    )
    files = {"model.onnx": memoryview(made.SerializeToString())}
    variant = _variant("onnxruntime", provider)
    with pytest.raises(TrustError, match="names an external file"):
        engines.find("onnxruntime").open_session(files, variant, 1, None)


def test_onnx_runtimes_other_format_is_refused(tmp_path: Path) -> None:
    """A graph in ORT's own format, which nobody walks, is not loaded."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(model().SerializeToString(), options, ["CPUExecutionProvider"])
    content = memoryview((tmp_path / "model.ort").read_bytes())
    variant = _variant("onnxruntime", "CPUExecutionProvider")
    with pytest.raises(TrustError, match="malformed"):
        engines.find("onnxruntime").open_session({"model.onnx": content}, variant, 1, None)


def test_openvino_reads_no_onnx(tmp_path: Path) -> None:
    """OpenVINO would take ONNX as well, and open the files that it names."""
    (tmp_path / "weights").write_bytes(bytes(64 * 64 * 4))
    made = model()
    made.graph.initializer[0].CopyFrom(elsewhere(str(tmp_path / "weights")))
    files = {
        "openvino_model.xml": memoryview(made.SerializeToString()),
        "openvino_model.bin": memoryview(bytearray(8)),
    }
    with pytest.raises(TrustError, match="not OpenVINO's own XML"):
        engines.find("openvino").open_session(files, _variant("openvino", "CPU"), 1, None)


def test_graphs_of_real_bundles_stand_alone(bundle: Callable[..., Path]) -> None:
    """What the packager makes is taken, whatever its precision."""
    opened = Bundle.open(bundle("bert-intent", "cpu-arm64"))
    graphs = [f.path for f in opened.manifest.files if f.path.endswith(".onnx")]
    assert graphs
    for path in graphs:
        check_alone(opened.read(path))
