"""Run a decoder's graph on whole texts, on the build host."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgepack.export import graph


def open_session(model: Any, outputs: Iterable[str] = ()) -> Any:
    """Open a graph, with more of its values as outputs."""
    import onnxruntime
    from onnx import ModelProto, helper

    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    with tempfile.TemporaryDirectory() as folder:
        graph.save(watched, Path(folder) / "model.onnx", apart=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )


def run(session: Any, names: Sequence[str], ids: Sequence[int], *, last: bool = False) -> Any:
    """Return values of the graph for one text; logits of all tokens, or only of the last."""
    import numpy as np

    rows = [len(ids) - 1] if last else range(len(ids))
    feeds: dict[str, Any] = {
        "input_ids": np.array([ids], dtype=np.int64),
        "rows": np.array(rows, dtype=np.int64),
        "seqlens_k": np.array([len(ids) - 1], dtype=np.int32),
        "total_sequence_length": np.array(len(ids), dtype=np.int32),
    }
    for item in session.get_inputs():
        if item.name not in feeds:
            shape = (1, item.shape[1], len(ids), item.shape[3])
            feeds[item.name] = np.zeros(shape, np.float32)
    return session.run(list(names), feeds)
