"""The quantized forms of an ONNX graph: float16, dynamic int8, static int8."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack.export import embeddings, graph, tensorrt
from edgepack.export.search import Trial, parameters
from edgepack.model.opened import calibration_feeds
from edgepack_runtime.errors import InputError

FILE = "model.onnx"
_ROUNDS = 4  # of calibration; each leaves more products in float


@dataclass(frozen=True)
class Static:
    """How to quantize statically."""

    kept: tuple[str, ...] = ()
    """Layers (torch module names) to leave in float."""
    tensorrt: bool = False
    """Whether to make the form that TensorRT reads."""


def to_float16(model: Any) -> Any:
    """Convert weights and activations to float16, but not the types of inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def dynamic(source: Path, final: Path, kept: Sequence[str]) -> None:
    """Fuse attention, layer norms and GELU, then quantize weights per channel."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fused = embeddings.to_int8(_fuse(source))
    quantize_dynamic(
        fused,
        final,
        nodes_to_exclude=graph.nodes_of(fused, kept),
        op_types_to_quantize=["MatMul", "Attention"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    graph.save(graph.load(final), final)


def _fuse(source: Path) -> Any:
    """Run ONNX Runtime's transformer fusions, with exact GELU and plain embeddings.

    Heads and width are read from the graph.  The graph of an architecture without fusions does not
    change.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # its table could not be quantized row by row
    options.enable_rotary_embeddings = False  # its positions take only one row
    fused = optimize_model(
        str(source), model_type="bert", opt_level=0, optimization_options=options, use_gpu=False
    )
    fused.topological_sort()
    domains = {item.domain for item in fused.model.opset_import}
    if "com.microsoft" not in domains:
        fused.model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return fused.model


def static(
    source: Path, inputs: Mapping[str, Path], settings: Static, trial: Trial, out: Path
) -> None:
    """Calibrate; for TensorRT, leave products that it refuses in float and calibrate again."""
    final = out / FILE
    left = set(graph.nodes_of(graph.load(source), settings.kept))
    for _ in range(_ROUNDS):
        graph.save(_calibrated(source, inputs, settings, trial, (out, left)), final)
        breaches = tensorrt.lint(final) if settings.tensorrt else []
        if not breaches:
            return
        refused = tensorrt.products_at(final, breaches) - left
        if not refused:
            break
        left |= refused
    first = breaches[0]
    raise InputError(
        f"the int8 graph has {len(breaches)} faults that TensorRT refuses, the first at "
        f"{first.node}: {first.why} ({first.rule})"
    )


def _calibrated(
    source: Path,
    inputs: Mapping[str, Path],
    settings: Static,
    trial: Trial,
    where: tuple[Path, Collection[str]],
) -> Any:
    """Calibrate with NNCF: SmoothQuant, then symmetric int8 Q/DQ pairs, weights per channel.

    TensorRT reads symmetric, explicit pairs on an unfused graph, with weights that are int8 in the
    file.  TensorRT cannot gather int8, so its embeddings are float16.

    `where` is a folder to work in, and the nodes to leave in float.
    """
    import logging

    import nncf
    from nncf.onnx.quantization.backend_parameters import BackendParameters

    nncf.set_log_level(logging.ERROR)
    model = graph.load(source)
    tables = embeddings.lookups(model) if settings.tensorrt else []
    model = model if settings.tensorrt else embeddings.to_int8(model)
    names = [item.name for item in model.graph.input]
    feeds = [{name: feed[name] for name in names} for feed in calibration_feeds(inputs)]
    advanced = parameters(trial, tied=graph.has_tied_weights(model))
    out, left = where
    with TemporaryDirectory(dir=out) as name:
        advanced.backend_params[BackendParameters.EXTERNAL_DATA_DIR] = str(Path(name).absolute())
        quantized = nncf.quantize(
            graph.weights_outside(model, Path(name)),
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            advanced_parameters=advanced,
            ignored_scope=nncf.IgnoredScope(names=[*sorted(left), *tables]),
        )
    if settings.tensorrt:
        embeddings.to_float16(quantized)
        tensorrt.make_signed(quantized)
    return quantized
