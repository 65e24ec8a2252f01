"""ONNX for ONNX Runtime: exported by Optimum, then shaped for where it runs.

Two pipelines that must not be mixed: dynamic int8 is fused first, because quantizing the
fused graph is what gives fast kernels; static int8 stays unfused, because fused operators
have no static form and TensorRT reads none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack.export import Choice, embeddings, graph, known, sensitivity, tensorrt
from edgepack.export.families import register_families
from edgepack.export.folding import decide_branches, fold_products
from edgepack.export.previous_scales import keep_scales
from edgepack.export.search import Trial, parameters, quantize_best
from edgepack.export.traits import copy_traits, probe_padding, sees_padding
from edgepack.model.opened import calibration_feeds
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack.tasks import find
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.text import INPUTS

REFERENCE = "onnxruntime"
FILES = ("model.onnx",)
OPSET = 18
TENSORRT = "TensorrtExecutionProvider"
_USUAL, _ROWS = (
    32,
    8,
)  # tokens that an engine is tuned for; rows of a batch, as the runtime makes them
_ROUNDS = 4  # of calibration, each with more products left in float
_EXPORT_TOOLS = ("edgepack", "torch", "transformers", "optimum", "optimum-onnx", "onnx")
_TOOLS = ("edgepack", "onnx", "onnxruntime", "nncf")


@dataclass(frozen=True)
class ExportSettings:
    """task: as Optimum names it."""

    task: str
    opset: int = OPSET


@dataclass(frozen=True)
class VariantSettings:
    """precision and scheme as in a target file; choice: how to quantize beyond that.

    tensorrt: make static int8 in the form that TensorRT reads.
    previous: the variant of the previous release whose scales are kept; empty for none.
    """

    precision: str
    scheme: str
    choice: Choice = Choice()
    tensorrt: bool = False
    previous: str = ""


def why_not(model_type: str, task: str) -> str:
    """Say why a family has no form for this engine; empty if it has one."""
    return known.why_not_onnx(model_type, task)


def export_stage(model: Source | Stage, task: str) -> Stage:
    """Return the stage that exports the float32 graph."""
    settings = ExportSettings(find(task).OPTIMUM)
    return Stage("export to ONNX", export, settings, {"model": model}, _EXPORT_TOOLS)


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:
    """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""
    kept = choice.kept if spec.precision == "int8" else ()
    trials = choice.trials if spec.scheme == "static" else 1
    strict = spec.scheme == "static" and spec.provider == TENSORRT
    previous = spec.name if "previous" in inputs else ""
    settings = VariantSettings(spec.precision, spec.scheme, Choice(kept, trials), strict, previous)
    needed = {"export": inputs["export"]}
    if spec.scheme == "dynamic-reduced":
        fresh = {name: item for name, item in inputs.items() if name != "previous"}
        needed["dynamic"] = variant_stage(replace(spec, scheme="dynamic"), fresh, choice)
    if spec.scheme == "static" or previous:
        needed |= {"tokenizer": inputs["tokenizer"], "texts": inputs["texts"]}
    if previous:
        needed["previous"] = inputs["previous"]
    labels = {
        "none": f"convert to {spec.precision} ONNX",
        "dynamic": "fuse and quantize ONNX, dynamic int8",
        "dynamic-reduced": "reduce dynamic int8 weights to 7 bits",
        "static": "quantize ONNX with NNCF, static int8 Q/DQ",
    }
    return Stage(labels[spec.scheme], make_variant, settings, needed, _TOOLS)


def ranking_stage(inputs: Mapping[str, Stage | Source]) -> Stage:
    """Return the stage that ranks the layers of the reference by what int8 costs them."""
    return sensitivity.stage(inputs)


def graphs(folder: Path) -> dict[str, tuple[str, ...]]:  # noqa: ARG001 (the Exporter protocol)
    """Return the files of each graph."""
    return {"model": FILES}


def export(settings: ExportSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Export with Optimum to `model.onnx`, tied weights stored once.

    Raises:
        InputError: Optimum knows no ONNX form of this architecture.

    """
    from optimum.exporters.onnx import main_export

    register_families()
    try:
        main_export(
            inputs["model"],
            out,
            task=settings.task,
            opset=settings.opset,
            library_name="transformers",
            do_validation=False,
            local_files_only=True,
        )
    except (ValueError, KeyError) as exc:
        raise InputError(f"Optimum cannot export {inputs['model'].name} to ONNX: {exc}") from exc
    model = graph.load(out / FILES[0])
    if unknown := sorted({item.name for item in model.graph.input} - set(INPUTS)):
        raise InputError(
            f"{inputs['model'].name} wants {', '.join(unknown)} beside {', '.join(INPUTS)}; "
            "the runtime does not make that input yet"
        )
    for path in out.iterdir():
        path.unlink()
    decide_branches(model)
    fold_products(model)
    graph.save(model, out / FILES[0])
    probe_padding(inputs["model"], partial(_run, _session(out / FILES[0])), out)


def _session(model: Path | bytes) -> Any:
    """Open a graph on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, feeds: Mapping[str, Any]) -> Any:
    """Return the first output for the inputs that the graph takes."""
    return session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]


def device_options(folder: Path, max_length: int, provider: str) -> dict[str, Any]:
    """Return the shapes that TensorRT should build its engine for; others need no options.

    A shape outside would have the engine built again, in the middle of an answer.
    """
    exact = {"exact_width": True} if sees_padding(folder) else {}
    if provider != TENSORRT:
        return exact
    import onnx

    model = onnx.load(str(folder / FILES[0]), load_external_data=False)
    sizes = {"min": (1, 1), "opt": (1, min(_USUAL, max_length)), "max": (_ROWS, max_length)}
    return {
        **exact,
        "max_rows": _ROWS,
        "provider_options": {
            f"trt_profile_{name}_shapes": ",".join(
                f"{item.name}:{rows}x{tokens}" for item in model.graph.input
            )
            for name, (rows, tokens) in sizes.items()
        },
    }


def make_variant(settings: VariantSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the `model.onnx` of one variant."""
    source, final = inputs["export"] / FILES[0], out / FILES[0]
    copy_traits(inputs["export"], out)
    if settings.precision == "float32":
        graph.save(graph.load(source), final)
    elif settings.precision == "float16":
        graph.save(_half(graph.load(source)), final)
    elif settings.scheme == "dynamic-reduced":
        graph.save(graph.halve_int8_weights(graph.load(inputs["dynamic"] / FILES[0])), final)
    elif settings.scheme == "static":
        quantize = partial(_static, source, inputs, settings)
        quantize_best(quantize, "onnxruntime", settings.choice.trials, inputs, out)
    else:
        _dynamic(source, final, settings.choice.kept)
    if settings.previous:
        keep_scales("onnxruntime", settings.previous, graph.keep_scales, inputs, out)


def _half(model: Any) -> Any:
    """Convert weights and activations to float16; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _dynamic(source: Path, final: Path, kept: Sequence[str]) -> None:
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

    Heads and width are read from the graph.  An architecture that has no fusions comes out
    as it went in.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # its table could not be quantized row by row
    options.enable_rotary_embeddings = False  # its positions take one row alone
    fused = optimize_model(
        str(source), model_type="bert", opt_level=0, optimization_options=options, use_gpu=False
    )
    fused.topological_sort()
    domains = {item.domain for item in fused.model.opset_import}
    if "com.microsoft" not in domains:
        fused.model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return fused.model


def _static(
    source: Path, inputs: Mapping[str, Path], settings: VariantSettings, trial: Trial, out: Path
) -> None:
    """Calibrate; for TensorRT, leave the products that it would refuse in float and do it again."""
    final = out / FILES[0]
    left = set(graph.nodes_of(graph.load(source), settings.choice.kept))
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
    settings: VariantSettings,
    trial: Trial,
    where: tuple[Path, Collection[str]],
) -> Any:
    """Calibrate with NNCF: SmoothQuant, then symmetric int8 Q/DQ pairs, weights per channel.

    Symmetric, explicit pairs on an unfused graph are the form that TensorRT reads, and its
    weights are int8 in the file.  TensorRT gathers no int8: its embeddings are float16.
    `where`: a folder to work in, and the nodes that stay in float.
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
