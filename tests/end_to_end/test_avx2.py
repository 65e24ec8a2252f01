"""A real CPU without VNNI: QEMU's Haswell, on which engines run their AVX2 kernels.

`/proc/cpuinfo` inside the emulation still shows the flags of the host.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.export import onnxruntime as exporter

Get = Callable[..., Path]
QEMU = "qemu-x86_64-static"
DEPTH, WIDTH = 64, 16
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which(QEMU) is None,
    reason=f"needs an x86-64 host and {QEMU} (apt install qemu-user-static)",
)
LOAD = """
import json, sys
import edgepack_runtime as er
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.model.selftest import selftest
bundle = Bundle.open(sys.argv[1])
model = er.load(bundle)
found = {"variant": model.variant.name, "agreement": selftest(bundle, model).agreement}
try:
    er.load(bundle, variant="onnxruntime-int8")
except er.DeviceError as exc:
    found["refused"] = str(exc)
print(json.dumps(found))
"""
PRODUCT = """
import json, sys
import numpy as np, onnxruntime
rows = np.load(sys.argv[1])
found = []
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found.append(session.run(None, {"x": rows})[0].tolist())
print(json.dumps(found))
"""


def _python(code: str, *args: str, emulated: bool = True) -> Any:
    program = [*([QEMU, "-cpu", "Haswell"] if emulated else []), sys.executable, "-c", code, *args]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bundle_picks_the_safe_variant_and_refuses_the_other(bundle: Get) -> None:
    """Golden outputs come out of the 7-bit form; the VNNI form, forced, is an error."""
    found = _python(LOAD, str(bundle("bert-ner")))
    assert found["variant"] == "onnxruntime-int8-avx2"
    assert found["agreement"] > 0.5
    assert "needs a CPU with avx512_vnni" in found["refused"]


def test_saturation_is_real_and_the_safe_form_is_free_of_it(tmp_path: Path) -> None:
    """With weights and activations at the rails, 8-bit products saturate and 7-bit ones do not."""
    weights = np.full((DEPTH, WIDTH), 0.5, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "/layer/MatMul")]
    made = helper.make_graph(
        nodes,
        "rails",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folders = {name: tmp_path / name for name in ("export", "dynamic", "reduced")}
    for folder in folders.values():
        folder.mkdir()
    onnx.save(model, str(folders["export"] / "model.onnx"))
    (folders["export"] / "traits.json").write_text('{"sees_padding": false}')
    settings = exporter.VariantSettings("int8", "dynamic")
    exporter.make_variant(settings, {"export": folders["export"]}, folders["dynamic"])
    settings = exporter.VariantSettings("int8", "dynamic-reduced")
    exporter.make_variant(settings, folders, folders["reduced"])
    rows = np.ones((4, DEPTH), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    paths = [str(folders[name] / "model.onnx") for name in ("dynamic", "reduced")]
    found = _python(PRODUCT, str(tmp_path / "rows.npy"), *paths)
    wanted = rows @ weights
    eight, seven = (float(np.abs(np.array(got) - wanted).max() / wanted.max()) for got in found)
    assert eight > 0.2
    assert seven < 0.02
