"""Rank the layers of a model by what int8 costs them: in this order, repair leaves them in float.

Decoders have a ranking of their own, `decoder/ranking.py`.
For each matrix product, the quantized result is computed next to the float one, on its real inputs:
with symmetric weights per channel and asymmetric activations per tensor.  The cost is the noise
energy divided by the signal energy (the inverse of the quantization SNR).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.export import decoder, graph
from edgepack.export.decoder import ranking
from edgepack.export.naming import layer_of
from edgepack.model.opened import calibration_feeds
from edgepack.stages.cache import Source, Stage
from edgepack_runtime.bundle.manifest import canonical_json

TOOLS = ("edgepack", "onnx", "onnxruntime", "numpy")
_TEXTS = 16
_DIGITS = 8


@dataclass(frozen=True)
class NoSettings:
    """The ranking has no settings."""


def stage(inputs: Mapping[str, Stage | Source]) -> Stage:
    """Return the stage that ranks layers; `inputs`: export (ONNX in float32), tokenizer, texts."""
    return Stage("rank layers by sensitivity", rank, NoSettings(), dict(inputs), TOOLS)


def rank(settings: NoSettings, inputs: Mapping[str, Path], out: Path) -> None:  # noqa: ARG001
    """Write `sensitivity.json`: [layer, noise ÷ signal] for the float ONNX graph, worst first."""
    model = graph.load(inputs["export"] / "model.onnx")
    if decoder.is_decoder(model):
        costs = ranking.costs(model, inputs)
    else:
        costs = {}
        for layer, value in _costs(model, inputs):
            costs[layer] = max(costs.get(layer, 0.0), value)
    ranked = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
    (out / "sensitivity.json").write_bytes(
        canonical_json([[layer, round(value, _DIGITS)] for layer, value in ranked])
    )


def read_ranking(folder: Path) -> list[str]:
    """Return the layers that `rank` wrote, worst first."""
    return [layer for layer, _ in json.loads((folder / "sensitivity.json").read_text())]


def _costs(model: Any, inputs: Mapping[str, Path]) -> Iterator[tuple[str, float]]:
    """Yield (layer, cost) for every matrix product with a weight, text by text."""
    import numpy as np
    import onnx
    import onnxruntime

    weights = {t.name: t for t in model.graph.initializer if len(t.dims) == 2}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    names = sorted({node.input[0] for node in products})
    known = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    taken = {item.name for item in session.get_inputs()}
    arrays = {
        name: onnx.numpy_helper.to_array(weights[name])
        for name in {node.input[1] for node in products}
    }
    rounded = {name: _round_weight(array) for name, array in arrays.items()}
    for count, feed in enumerate(calibration_feeds(inputs)):
        if count == _TEXTS:
            return
        states = dict(zip(names, session.run(names, {k: feed[k] for k in taken}), strict=True))
        for node in products:
            state = states[node.input[0]].reshape(-1, arrays[node.input[1]].shape[0])
            signal = state @ arrays[node.input[1]]
            noise = _round_state(state) @ rounded[node.input[1]] - signal
            cost = float((noise**2).sum() / max(float((signal**2).sum()), 1e-20))
            yield layer_of(node.name), cost if np.isfinite(cost) else 1e9


def _round_weight(weight: Any) -> Any:
    import numpy as np

    scale = np.maximum(np.abs(weight).max(axis=0, keepdims=True), 1e-12) / 127
    return np.rint(weight / scale) * scale


def _round_state(state: Any) -> Any:
    import numpy as np

    low, high = min(float(state.min()), 0.0), max(float(state.max()), 0.0)
    scale = max(high - low, 1e-12) / 255
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(state / scale) + zero, 0, 255) - zero) * scale
