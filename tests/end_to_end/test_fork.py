"""What becomes of a loaded model in a process that is forked from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """
import os, sys
import edgepack_runtime as er

model = er.load(sys.argv[1], variant=sys.argv[2])
model("turn on the lights")
if os.fork() == 0:
    try:
        print("answered", len(model(["turn on the lights", "yes"])))
    except er.DeviceError as exc:
        print(exc)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(
    ("variant", "said"),
    [("openvino-float32", "load the model in each worker"), ("onnxruntime-float32", "answered 2")],
)
def test_a_forked_process_answers_or_says_why_not(
    variant: str, said: str, bundle: Callable[..., Path]
) -> None:
    """ONNX Runtime answers in a child; OpenVINO, which would wait for ever, is refused."""
    path = bundle("bert-intent", "cpu-x86-64", "float32")
    command = [sys.executable, "-c", CODE, str(path), variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert said in done.stdout
