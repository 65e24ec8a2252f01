"""Weights in a file beside the graph are mapped, checked, and cached as the kernels want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack_runtime import DeviceError, TrustError, engines
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines import _ort_open
from edgepack_runtime.engines._onnx_graph import check_alone

CPU = "CPUExecutionProvider"
VARIANT = Variant("x", "onnxruntime", CPU, "float32", "none", (), Requires(), Tolerance(0.9, 0.9))
FEEDS = {"x": np.arange(126, dtype=np.float32)[None] / 126}


def files(columns: int = 64, place: dict[str, str] | None = None) -> dict[str, memoryview]:
    """Return a graph of two products and its weights, at another place if one is given."""
    rng = np.random.default_rng(0)
    held = b""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["y"]),
            helper.make_node("MatMul", ["y", "b"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 126])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 32])],
    )
    for name, shape in (("a", (126, columns)), ("b", (columns, 32))):
        tensor = numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        own = {"location": "model.data", "offset": str(len(held)), "length": str(len(raw))}
        for key, value in {**own, **(place or {})}.items():
            if value:
                tensor.external_data.add(key=key, value=value)
        held += raw
        graph.initializer.append(tensor)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return {"model.onnx": memoryview(model.SerializeToString()), "model.data": memoryview(held)}


def answer(made: dict[str, memoryview], cache: Path | None) -> Any:
    """Run the graph once."""
    session = engines.find("onnxruntime").open_session(made, VARIANT, 1, cache)
    return session.run(FEEDS)["z"]


def test_weights_beside_the_graph_are_those_in_it() -> None:
    """The answer is that of numpy, whatever the place of the bytes in memory."""
    made = files()
    held = made["model.data"]
    a = np.frombuffer(held[: 126 * 64 * 4], np.float32).reshape(126, 64)
    b = np.frombuffer(held[126 * 64 * 4 :], np.float32).reshape(64, 32)
    for shift in (0, 1, 7):
        moved = memoryview(bytes(shift) + bytes(held))[shift:]
        got = answer({**made, "model.data": moved}, None)
        np.testing.assert_allclose(got, FEEDS["x"] @ a @ b, rtol=1e-4)


def test_the_second_load_reads_the_cache_alone(tmp_path: Path) -> None:
    """It gives the same bits without the bundle's weights; a damaged cache is made again."""
    made = files()
    first = answer(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"onnxruntime.onnx", "onnxruntime.data"}
    assert (answer({}, tmp_path) == first).all()
    with (tmp_path / "onnxruntime.data").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damage")
    assert (answer(made, tmp_path) == first).all()
    assert (answer({}, tmp_path) == first).all()


def test_weights_that_no_kernel_could_read_in_place_are_not_cached(tmp_path: Path) -> None:
    """ONNX Runtime packs odd widths to odd places, where its kernels crash."""
    made = files(columns=63)
    first = answer(made, tmp_path)
    assert not list(tmp_path.iterdir())
    assert (answer(made, tmp_path) == first).all()


def test_a_full_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache needs the weights' room four times."""
    monkeypatch.setattr(_ort_open, "free_bytes", lambda _: 100_000)
    answer(files(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ({"location": "/etc/passwd"}, "names an external file"),
        ({"location": "../model.data"}, "names an external file"),
        ({"location": ""}, "names an external file"),
        ({"length": ""}, "names an external file"),
        ({"offset": "40960"}, "malformed"),
        ({"offset": "-64"}, "malformed"),
        ({"length": "9" * 40}, "malformed"),
        ({"checksum": "x"}, "names an external file"),
    ],
)
def test_a_graph_names_its_own_file_and_bytes_that_it_has(
    place: dict[str, str], match: str
) -> None:
    """Another file, a place beyond the end and an unknown entry do not reach ONNX Runtime."""
    with pytest.raises(TrustError, match=match):
        answer(files(place=place), None)


def test_an_entry_that_stands_twice_is_refused() -> None:
    """Two readers may take one of them each."""
    model = onnx.load_from_string(bytes(files()["model.onnx"]))
    model.graph.initializer[0].external_data.add(key="location", value="model.data")
    with pytest.raises(TrustError, match="names an external file"):
        check_alone(memoryview(model.SerializeToString()), {"model.data": 1 << 20})


def test_an_old_onnx_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot map weights says which can."""
    import onnxruntime as ort

    monkeypatch.delattr(ort.SessionOptions, "add_external_initializers_from_files_in_memory")
    with pytest.raises(DeviceError, match=r"cannot map weights; install 1\.24"):
        answer(files(), None)
