"""Nothing runs on the CPU while claiming another provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack_runtime import DeviceError
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines import _placement as placement
from edgepack_runtime.engines import onnxruntime as engine

AZURE = "AzureExecutionProvider"  # in every wheel, and takes no node of a plain graph
CPU = "CPUExecutionProvider"


def _model() -> bytes:
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [None, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def _open(provider: str) -> engine.OrtSession:
    variant = Variant(
        "x",
        "onnxruntime",
        provider,
        "float32",
        "none",
        (),
        Requires(),
        Tolerance(0.9, 0.9),
    )
    return engine.open_session({"model.onnx": memoryview(_model())}, variant, 1, None)


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"needs {AZURE}")
def test_a_provider_that_takes_no_node_is_an_error() -> None:
    """ONNX Runtime lists the provider first and runs everything on the CPU; we say so."""
    session = onnxruntime.InferenceSession(_model(), providers=[AZURE, CPU])
    assert session.get_providers()[0] == AZURE
    with pytest.raises(DeviceError, match=rf"{AZURE} did not take the graph: 1 MatMul on {CPU}"):
        _open(AZURE)


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"needs {AZURE}")
def test_older_versions_are_asked_by_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a session does not report its placement, one profiled run does."""
    monkeypatch.setattr(placement, "assigned", lambda _: None)
    with pytest.raises(DeviceError, match="did not take the graph"):
        _open(AZURE)


def test_both_ways_count_the_same_nodes() -> None:
    """A session's own report and a profile of it agree, operator by operator."""

    def make(profile: str = "") -> Any:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.enable_profiling = bool(profile)
        if profile:
            options.profile_file_prefix = profile
        return onnxruntime.InferenceSession(_model(), options, providers=[CPU])

    profiled = placement.profiled(make, engine._run_once)
    assert placement.assigned(make()) == profiled
    assert placement.totals(profiled) == {CPU: 3}
    assert placement.strays(profiled, CPU) == {}
    assert placement.strays(profiled, "Other") == {f"MatMul on {CPU}": 1, f"Softmax on {CPU}": 1}


def test_a_provider_that_is_not_there_is_an_error() -> None:
    """Asking for CUDA where the wheel has none fails; it does not fall back."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        _open("CUDAExecutionProvider")


def test_a_profile_is_kept_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One profile serves every later load of the same graph, and no file of it stays behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(placement, "assigned", lambda _: None)
    cache = tmp_path / "cache"

    def make(profile: str = "") -> Any:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = bool(profile)
        if profile:
            options.profile_file_prefix = profile
        return onnxruntime.InferenceSession(_model(), options, providers=[CPU])

    first = engine._profiled(make, cache)
    assert first[CPU]["MatMul"] == 1

    def never(_: str = "") -> Any:
        raise AssertionError("profiled again")

    assert engine._profiled(never, cache) == first
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["placement.json"]


def test_a_failure_while_running_is_an_error_and_no_fall_back() -> None:
    """ONNX Runtime's own retry on the CPU is off: a session that fails says so."""
    session = _open(CPU)
    assert session._session._enable_fallback is False
    with pytest.raises(DeviceError, match="fails on an input of 1×3"):
        session.run({"input_ids": np.ones((1, 3), np.int64)})
