"""ONNX for ONNX Runtime: exported by Optimum, then shaped for where it runs.

Two pipelines that must not be mixed: dynamic int8 is fused first, because quantizing the
fused graph is what gives fast kernels; static int8 stays unfused, because fused operators
have no static form and TensorRT reads none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgepack.export import (
    FOUR_BITS,
    Choice,
    decoder,
    draft,
    graph,
    known,
    lora,
    pairs,
    sensitivity,
)
from edgepack.export import onnx_quantize as quantize
from edgepack.export.decoder import blocks, half, nbits
from edgepack.export.families import register_families
from edgepack.export.folding import decide_branches, fold_products
from edgepack.export.known import MADE
from edgepack.export.previous_scales import keep_scales
from edgepack.export.search import quantize_best
from edgepack.export.traits import copy_traits, probe_padding, sees_padding, write_traits
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack.tasks import find
from edgepack_runtime.errors import InputError

REFERENCE = "onnxruntime"
FILES = (quantize.FILE,)
OPSET = 18
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_USUAL = 32  # tokens that an engine is tuned for
_ROWS = 8  # of a batch, as the runtime makes them
_EXPORT_TOOLS = ("edgepack", "torch", "transformers", "optimum", "optimum-onnx", "onnx")
_TOOLS = ("edgepack", "onnx", "onnxruntime", "nncf")


@dataclass(frozen=True)
class ExportSettings:
    """How to export."""

    task: str
    """As Optimum names it."""
    opset: int = OPSET
    """Of the ONNX graph."""
    decodes: bool = False
    """Whether the model writes token by token."""
    pairs: bool = False
    """Whether it reads one text and writes another."""


@dataclass(frozen=True)
class VariantSettings:
    """How to make one variant of the exported graph."""

    precision: str
    """As in a target file."""
    scheme: str
    """As in a target file."""
    choice: Choice = Choice()
    """How to quantize, beyond precision and scheme."""
    gpu: bool = False
    """Whether what is not quantized is float16."""
    tensorrt: bool = False
    """Whether static int8 takes the form that TensorRT reads."""
    previous: str = ""
    """The variant of the previous release whose scales are used again; empty for none."""


def why_not(model_type: str, task: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no form for this engine, or for a variant; empty if it has one."""
    if find(task).PAIRS:
        return pairs.why_not(model_type, spec)
    if find(task).DECODES:
        return decoder.why_not(model_type, spec)
    if spec and spec.precision == "int4":
        return FOUR_BITS
    return known.why_not_onnx(model_type, task)


def export_stage(model: Source | Stage, task: str) -> Stage:
    """Return the stage that exports the float32 graph."""
    facts = find(task)
    settings = ExportSettings(facts.OPTIMUM, decodes=facts.DECODES, pairs=facts.PAIRS)
    return Stage("export to ONNX", export, settings, {"model": model}, _EXPORT_TOOLS)


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:
    """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""
    kept = choice.kept if spec.precision in ("int8", "int4") else ()
    trials = choice.trials if spec.scheme == "static" else 1
    strict = spec.scheme == "static" and spec.provider == TENSORRT
    previous = spec.name if "previous" in inputs else ""
    gpu = spec.provider in (CUDA, TENSORRT)
    settings = VariantSettings(
        spec.precision, spec.scheme, Choice(kept, trials), gpu, strict, previous
    )
    needed = {"export": inputs["export"]}
    if spec.scheme == "dynamic-reduced":
        fresh = {name: item for name, item in inputs.items() if name != "previous"}
        needed["dynamic"] = variant_stage(replace(spec, scheme="dynamic"), fresh, choice)
    calibrated = spec.scheme in ("static", "weights") or "images" in inputs
    if calibrated or previous or _writes(inputs["export"]):
        needed |= {"tokenizer": inputs["tokenizer"], "texts": inputs["texts"]}
    if previous:
        needed["previous"] = inputs["previous"]
    if "adapters" in inputs:
        needed["adapters"] = inputs["adapters"]
    labels = {
        "none": f"convert to {spec.precision} ONNX",
        "dynamic": "fuse and quantize ONNX, dynamic int8",
        "dynamic-reduced": "reduce dynamic int8 weights to 7 bits",
        "weights": "round weights to four bits",
        "static": "quantize ONNX with NNCF, static int8 Q/DQ",
    }
    return Stage(labels[spec.scheme], make_variant, settings, needed, _TOOLS)


def _writes(export: Stage | Source) -> bool:
    """Tell whether an export is of a decoder, whose blocks are chosen by texts."""
    settings = export.settings if isinstance(export, Stage) else None
    return isinstance(settings, ExportSettings) and settings.decodes and not settings.pairs


def ranking_stage(inputs: Mapping[str, Stage | Source]) -> Stage:
    """Return the stage that ranks the layers of the reference by what int8 costs them."""
    return sensitivity.stage(inputs)


def graphs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the files of each graph."""
    named = {"model": FILES} if (folder / FILES[0]).exists() else pairs.FILES
    found = {name: graph.files(folder, own) for name, (own,) in named.items()}
    return draft.with_draft(folder, found, graphs)


def export(settings: ExportSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Export with Optimum to `model.onnx`, tied weights stored once.

    Raises:
        InputError: Optimum knows no ONNX form of this architecture.

    """
    if settings.decodes:
        if settings.pairs:
            pairs.export(inputs["model"], out, settings.opset)
        else:
            decoder.export(inputs["model"], out)
        write_traits(out, sees_padding=False)
        return
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
    if unknown := sorted({item.name for item in model.graph.input} - MADE):
        raise InputError(
            f"{inputs['model'].name} wants {', '.join(unknown)}; the runtime does not make that "
            f"input yet, it makes {', '.join(sorted(MADE))}"
        )
    for path in out.iterdir():
        path.unlink()
    decide_branches(model)
    fold_products(model)
    graph.save(model, out / FILES[0])
    if "input_ids" in {item.name for item in model.graph.input}:
        probe_padding(inputs["model"], partial(_run, _session(out / FILES[0])), out)
    else:
        write_traits(out, sees_padding=False)


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
                f"{item.name}:{rows}x{_rest(item, tokens)}" for item in model.graph.input
            )
            for name, (rows, tokens) in sizes.items()
        },
    }


def _rest(item: Any, tokens: int) -> str:
    """Return the sizes of an input after its rows: its tokens, or those of an image."""
    fixed = [dim.dim_value for dim in item.type.tensor_type.shape.dim[1:]]
    return "x".join(map(str, fixed)) if len(fixed) > 1 else str(tokens)


def make_variant(settings: VariantSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the `model.onnx` of one variant."""
    source, final = inputs["export"] / FILES[0], out / FILES[0]
    copy_traits(inputs["export"], out)
    if not source.exists():
        _pairs(settings.precision, inputs["export"], out)
        return
    if decoder.is_decoder(model := graph.load(source)):
        made = _decoder(settings, model, inputs)
        if "adapters" in inputs:
            lora.add_to_onnx(made, lora.shapes(inputs["adapters"]))
            lora.copy(inputs["adapters"], out)
        graph.save(made, final, apart=True)
    elif settings.precision == "float32":
        graph.save(model, final)
    elif settings.precision == "float16":
        graph.save(quantize.to_float16(graph.load(source)), final)
    elif settings.scheme == "dynamic-reduced":
        graph.save(graph.halve_int8_weights(graph.load(inputs["dynamic"] / FILES[0])), final)
    elif settings.scheme == "static" or _convolves(settings, model, inputs):
        scheme = quantize.Static(settings.choice.kept, tensorrt=settings.tensorrt)
        make = partial(quantize.static, source, inputs, scheme)
        quantize_best(make, "onnxruntime", settings.choice.trials, inputs, out)
    else:
        quantize.dynamic(source, final, settings.choice.kept)
    if settings.previous:
        keep_scales("onnxruntime", settings.previous, graph.keep_scales, inputs, out)


def _convolves(settings: VariantSettings, model: Any, inputs: Mapping[str, Path]) -> bool:
    """Tell whether a model of images has convolutions, which only static int8 makes faster."""
    kinds = [node.op_type for node in model.graph.node]
    images = settings.scheme.startswith("dynamic") and "texts" in inputs
    return images and kinds.count("Conv") > kinds.count("MatMul")


def _decoder(settings: VariantSettings, model: Any, inputs: Mapping[str, Path]) -> Any:
    """Return a decoder with smaller weights; four bits are rounded by the calibration texts."""
    kept, bits = settings.choice.kept, {"int8": 8, "int4": 4}.get(settings.precision)

    def make(block: int) -> Any:
        fresh = graph.load(inputs["export"] / FILES[0])
        if bits == 8:
            return nbits.to_int8(fresh, kept, block)
        return nbits.to_int4(fresh, windows, kept, block)

    if bits:
        windows = decoder.read_windows(inputs)
        model = blocks.largest(make, bits, model, windows)
    return half.to_float16(model) if settings.gpu else model


def _pairs(precision: str, source: Path, out: Path) -> None:
    """Write the graphs of a model that reads one text and writes another."""
    for (name,) in pairs.FILES.values():
        model = graph.load(source / name)
        graph.save(nbits.to_int8(model) if precision == "int8" else model, out / name, apart=True)
